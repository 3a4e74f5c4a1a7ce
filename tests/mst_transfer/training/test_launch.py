"""What is refused before a training or test starts, on the configs that ship."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.quickstart import street
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_transfer.data import coco_file, layouts
from mst_transfer.training.checks import check_test, check_training

CONFIGS = Path(__file__).parents[3] / "configs"
CLASSES = ["person", "car", "truck", "bus", "bicycle"]  # of the street scenes, in the files' order
HEADS = ("model.roi_head.bbox_head.num_classes", "model.roi_head.mask_head.num_classes")
SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four street scenes in both layouts, and a checkpoint without weights that names its classes."""
    street.generate(tmp_path / "data", seed=1, train=3, val=1, height=64, width=96)
    checkpoint(tmp_path, {"dataset_meta": {"classes": tuple(CLASSES)}})
    return tmp_path


def checkpoint(root: Path, meta: dict[str, Any]) -> None:
    torch.save({"state_dict": {}, "meta": meta}, root / "weights.pth")


def detection(root: Path, heads: int = 5, **options: Any) -> Any:
    """Mask R-CNN on the street scenes."""
    given: dict[str, Any] = {
        "data_root": f"{root}/data/coco/",
        "model.backbone.init_cfg.checkpoint": f"{root}/weights.pth",
        "load_from": f"{root}/weights.pth",
        **dict.fromkeys(HEADS, heads),
        **{f"+{split}_dataloader.dataset.metainfo.classes": CLASSES for split in SPLITS},
    }
    return load_config(CONFIGS / "coco/mask_rcnn_mst.py", given | options)


def lose_an_image(root: Path, split: str) -> None:
    next((root / f"data/coco/{split}2017").glob("*.jpg")).unlink()


def test_good_settings_pass(root: Path) -> None:
    """A run with everything in place would be refused."""
    check_training(detection(root))
    check_test(detection(root))


@pytest.mark.parametrize("split", ["train", "val"])
def test_both_splits_are_checked_before_training(root: Path, split: str) -> None:
    """A broken validation set would end a run after its first epoch."""
    lose_an_image(root, split)
    with pytest.raises(
        UserError, match=rf"{split}2017/\S+: is not there, but .*instances_{split}2017.json names it"
    ):
        check_training(detection(root))


def test_the_test_split_is_checked_before_testing(root: Path) -> None:
    """Testing would look at the validation set, or want the training images as well."""
    lose_an_image(root, "train")
    cfg = detection(root)
    cfg.test_dataloader.dataset.ann_file = "annotations/other.json"
    with pytest.raises(UserError, match=r"other\.json does not exist"):
        check_test(cfg)
    check_test(detection(root))


def test_a_json_that_changed_is_parsed_again(root: Path) -> None:
    """A file that was corrected would still be refused, or a broken one accepted, as it was before."""
    path = root / "data/coco/annotations/instances_val2017.json"
    with coco_file.parsing_once():
        first = coco_file.read_coco(path)
        assert coco_file.read_coco(path) is first
        path.write_text(json.dumps({**first, "info": {"version": "corrected"}}))
        assert coco_file.read_coco(path)["info"] == {"version": "corrected"}


def test_what_only_costs_an_object_stops_no_training(root: Path) -> None:
    """Data that mmdet trains on, with a box over the edge or an object without an area, would be refused."""
    path = root / "data/coco/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    first, second = content["annotations"][:2]
    x, y, width, height = first["bbox"]
    first["bbox"] = [-9.0, y, x + width + 9, height]
    second["area"] = 0
    path.write_text(json.dumps(content))
    check_training(detection(root))


@pytest.mark.parametrize("heads", [4, 6, 80])
def test_number_of_classes(root: Path, heads: int) -> None:
    """A head with too many or too few outputs would train wrong classes, or fail with an index on the GPU."""
    with pytest.raises(UserError, match=rf"{HEADS[0]}={heads}, but .* has 5 classes.*--cfg-options"):
        check_training(detection(root, heads=heads))
    one_wrong = detection(root, **{HEADS[1]: heads})
    with pytest.raises(UserError, match=f"{HEADS[1]}={heads}"):
        check_training(one_wrong)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train_cfg.max_iters": -5}, "train_cfg.max_iters is -5; it must be at least 1."),
        ({"train_cfg.max_iters": 0}, "train_cfg.max_iters is 0; it must be at least 1."),
        ({"train_cfg.max_epochs": 0}, "train_cfg.max_epochs is 0; it must be at least 1."),
        ({"train_cfg.max_epochs": -1}, "train_cfg.max_epochs is -1; it must be at least 1."),
        ({"train_cfg.val_interval": 0}, "train_cfg.val_interval is 0; it must be at least 1."),
        ({"train_cfg.val_interval": "1"}, "train_cfg.val_interval is '1', which is not a whole number."),
        ({HEADS[0]: "5"}, f"{HEADS[0]} is '5', which is not a whole number."),
        ({"+model.rpn_head.in_channels": "256"}, "model.rpn_head.in_channels is '256', which is not a whole"),
        ({"model.data_preprocessor.pad_size_divisor": "32"}, "pad_size_divisor is '32', which is not a whole"),
        ({"train_dataloader.batch_size": "2"}, "train_dataloader.batch_size is '2', which is not a whole"),
        ({"val_dataloader.num_workers": 1.5}, "val_dataloader.num_workers is 1.5, which is not a whole"),
        ({"optim_wrapper.optimizer.lr": "1e-3"}, "optim_wrapper.optimizer.lr is '1e-3', which is not a number"),
        ({"+optim_wrapper.clip_grad": "1"}, "optim_wrapper.clip_grad is '1', which is not a dictionary or None"),
        ({"+resume": "yes"}, "resume is 'yes', which is not True or False. Correct that value."),
        ({"+custom_hooks": "EMAHook"}, "custom_hooks is 'EMAHook', which is not a list of a dictionary or None"),
        ({"model.backbone.init_cfg": "a.pth"}, "init_cfg is 'a.pth', which is not a dictionary"),
        ({"model.backbone.init_cfg": "none"}, "to start from random weights: --init random"),
        ({"+model.neck.init_cfg": "a.pth"}, "model.neck.init_cfg is 'a.pth', which is not a dictionary"),
    ],
)  # fmt: skip
def test_values_of_another_kind(root: Path, options: dict[str, Any], said: str) -> None:
    """A run would end at once as if it had trained, or in a traceback, maybe in the middle."""
    cfg = detection(root)
    cfg.merge_from_dict({key.removeprefix("+"): value for key, value in options.items()})
    with pytest.raises(UserError) as error:
        check_training(cfg)
    assert str(error.value).startswith(f"{cfg.filename}: ") and said in str(error.value)


def test_other_initialisations_are_their_classes_own(root: Path) -> None:
    """A list of initialisations, as mmdet's own backbones have, would end in a traceback."""
    cfg = detection(root)
    cfg.model.backbone = dict(type="ResNet", depth=18, init_cfg=[dict(type="Kaiming", layer="Conv2d")])
    check_training(cfg)


def test_missing_weights(root: Path) -> None:
    """The run would fail after the data were read, without the command that makes the file."""
    key = "model.backbone.init_cfg.checkpoint"
    with pytest.raises(UserError, match=r"work_dirs/no/latest\.pth\..*pretrain\.sh configs/pretrain/no\.py"):
        check_training(detection(root, **{key: "work_dirs/no/latest.pth"}))
    resumed = detection(root, **{key: "work_dirs/no/latest.pth"})
    resumed.resume = True
    check_training(resumed)
    random = detection(root)
    random.model.backbone.init_cfg = None
    check_training(random)
    with pytest.raises(UserError, match=r"checkpoint .*absent\.pth does not exist"):
        check_test(detection(root, load_from=f"{root}/absent.pth"))
    with pytest.raises(UserError, match="is a folder, not a checkpoint"):
        check_test(detection(root, load_from=str(root)))


def test_segmentation_data(root: Path) -> None:
    """A label map with an unknown id would stop a run of Cityscapes in the middle."""
    options = {
        "data_root": f"{root}/data/cityscapes/",
        "model.backbone.init_cfg.checkpoint": f"{root}/weights.pth",
    }
    check_training(load_config(CONFIGS / "cityscapes/upernet_mst.py", options))
    with pytest.raises(
        UserError, match=r"model\.decode_head\.num_classes is '19', which is not a whole number"
    ):
        check_training(
            load_config(
                CONFIGS / "cityscapes/upernet_mst.py", options | {"model.decode_head.num_classes": "19"}
            )
        )
    next((root / "data/cityscapes/gtFine/val").rglob("*labelTrainIds.png")).unlink()
    with pytest.raises(UserError, match=r"gtFine/val/\S+labelTrainIds\.png: does not exist"):
        check_training(load_config(CONFIGS / "cityscapes/upernet_mst.py", options))


def test_categories_of_the_file_are_the_classes(root: Path) -> None:
    """Labels would be swapped: the validation file has the same categories in another order."""
    file = root / "data/coco/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"].reverse()
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"category 1 of those trained is 'bicycle' there and 'person'"):
        check_training(detection(root))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (CLASSES[::-1], r"label 0 is 'person' and was trained as 'bicycle' \(5 and 5 classes\)"),
        (["person", "car", "bus", "truck", "bicycle"], "label 2 is 'truck' and was trained as 'bus'"),
        (CLASSES[:4], "label 4 is 'bicycle' and was trained as absent"),
    ],
)
def test_a_checkpoint_of_other_classes_is_not_scored(root: Path, names: list[str], message: str) -> None:
    """Detections would be counted for other classes than they were trained as: 80.61 mAP became 0.00, silently."""
    checkpoint(root, {"dataset_meta": {"classes": tuple(names)}})
    with pytest.raises(UserError, match=message) as error:
        check_test(detection(root))
    assert "weights.pth" in str(error.value) and "Set its metainfo.classes to" in str(error.value)


def test_a_segmentors_checkpoint_of_other_classes_is_not_scored(root: Path) -> None:
    """The mIoU of permuted classes would be printed as the checkpoint's."""
    names = layouts.CITYSCAPES_CLASSES
    options = {"data_root": f"{root}/data/cityscapes/", "load_from": f"{root}/weights.pth"}
    cfg = load_config(CONFIGS / "cityscapes/upernet_mst.py", options)
    checkpoint(root, {"dataset_meta": {"classes": names}})
    check_test(cfg)
    checkpoint(root, {"dataset_meta": {"classes": names[::-1]}})
    with pytest.raises(UserError, match="label 0 is 'road' and was trained as 'bicycle'"):
        check_test(cfg)


@pytest.mark.parametrize("meta", [{}, {"dataset_meta": {}}, {"dataset_meta": "classes"}])
def test_a_checkpoint_without_names_is_scored_with_a_warning(
    root: Path, meta: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints of other tools could not be tested, or nobody would learn that their names are a guess."""
    check_test(detection(root))
    assert "warning" not in capsys.readouterr().out
    checkpoint(root, meta)
    check_test(detection(root))
    said = capsys.readouterr().out
    assert "weights.pth does not say which classes" in said and "person, car, truck, ..." in said


def test_training_and_validation_have_the_same_classes(root: Path) -> None:
    """Every score during training would be counted for permuted classes."""
    cfg = load_config(
        CONFIGS / "cityscapes/upernet_mst.py",
        {"data_root": f"{root}/data/cityscapes/", "model.backbone.init_cfg": None},
    )
    cfg.val_dataloader.dataset.metainfo = dict(classes=layouts.CITYSCAPES_CLASSES[::-1])
    with pytest.raises(UserError, match=r"val_dataloader.dataset has .* label 0 is 'bicycle' .* as 'road'"):
        check_training(cfg)
    cfg.val_dataloader.dataset.metainfo = dict(classes=layouts.CITYSCAPES_CLASSES)
    check_training(cfg)


def test_masks_are_needed_where_masks_are_trained_or_scored(root: Path) -> None:
    """Training would die in a KeyError at the first image without masks, or refuse boxes that need none."""
    for split in ("train", "val"):
        path = root / f"data/coco/annotations/instances_{split}2017.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation["segmentation"] = []
        path.write_text(json.dumps(content))
    cfg = detection(root)
    cfg.val_evaluator = dict(cfg.val_evaluator)
    for split, edit in (
        ("train", lambda: cfg.train_dataloader.dataset.pipeline[1].update(with_mask=False)),
        ("val", lambda: cfg.val_dataloader.dataset.pipeline[2].update(with_mask=False)),
        ("val", lambda: cfg.val_evaluator.update(metric="bbox")),
    ):
        with pytest.raises(UserError, match=rf"instances_{split}2017\.json: \d+ annotations have no mask"):
            check_training(cfg)
        edit()
    check_training(cfg)


def test_validation_on_the_training_images_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The score of a whole training would be of images that the network has learned by heart."""
    check_training(detection(root))
    assert "also in train" not in capsys.readouterr().out
    folder = root / "data/coco"
    shutil.rmtree(folder / "val2017")
    (folder / "val2017").symlink_to(folder / "train2017")
    shutil.copy(
        folder / "annotations/instances_train2017.json", folder / "annotations/instances_val2017.json"
    )
    check_training(detection(root))
    said = f"warning: {folder}/val2017: 3 of 3 images of val are also in train, first street_"
    assert said in capsys.readouterr().out
