"""What is refused before a training or test starts, on the configs that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.config import load_config
from mst_pretrain.errors import UserError
from mst_transfer.data import street
from mst_transfer.launch import check_test, check_training

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = ["person", "car", "truck", "bus", "bicycle"]  # of the street scenes, in the files' order
HEADS = ("model.roi_head.bbox_head.num_classes", "model.roi_head.mask_head.num_classes")
SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four street scenes in both layouts, and a file in place of weights."""
    street.generate(tmp_path / "data", seed=1, train=3, val=1, height=64, width=96)
    (tmp_path / "weights.pth").write_bytes(b"")
    return tmp_path


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
    with pytest.raises(UserError, match=rf"instances_{split}2017.json names 1 images"):
        check_training(detection(root))


def test_the_test_split_is_checked_before_testing(root: Path) -> None:
    """Testing would look at the validation set, or want the training images as well."""
    lose_an_image(root, "train")
    cfg = detection(root)
    cfg.test_dataloader.dataset.ann_file = "annotations/other.json"
    with pytest.raises(UserError, match=r"other\.json does not exist"):
        check_test(cfg)
    check_test(detection(root))


@pytest.mark.parametrize("heads", [4, 6, 80])
def test_number_of_classes(root: Path, heads: int) -> None:
    """A head with too many or too few outputs would train wrong classes, or fail with an index on the GPU."""
    with pytest.raises(UserError, match=rf"{HEADS[0]}={heads}, but .* has 5 classes.*--cfg-options"):
        check_training(detection(root, heads=heads))
    one_wrong = detection(root, **{HEADS[1]: heads})
    with pytest.raises(UserError, match=f"{HEADS[1]}={heads}"):
        check_training(one_wrong)


def test_missing_weights(root: Path) -> None:
    """The run would fail after the data were read, without the command that makes the file."""
    key = "model.backbone.init_cfg.checkpoint"
    with pytest.raises(UserError, match=r"work_dirs/no/latest\.pth\..*pretrain\.sh configs/pretrain/no\.py"):
        check_training(detection(root, **{key: "work_dirs/no/latest.pth"}))
    random = detection(root)
    random.model.backbone.init_cfg = None
    check_training(random)
    with pytest.raises(UserError, match=r"checkpoint .*absent\.pth does not exist"):
        check_test(detection(root, load_from=f"{root}/absent.pth"))


def test_segmentation_data(root: Path) -> None:
    """A label map with an unknown id would stop a run of Cityscapes in the middle."""
    options = {
        "data_root": f"{root}/data/cityscapes/",
        "model.backbone.init_cfg.checkpoint": f"{root}/weights.pth",
    }
    check_training(load_config(CONFIGS / "cityscapes/upernet_mst.py", options))
    next((root / "data/cityscapes/gtFine/val").rglob("*labelTrainIds.png")).unlink()
    with pytest.raises(UserError, match=r"1 of 1 images in .*val have no label map"):
        check_training(load_config(CONFIGS / "cityscapes/upernet_mst.py", options))


def test_categories_of_the_file_are_the_classes(root: Path) -> None:
    """Labels would be swapped: the validation file has the same categories in another order."""
    file = root / "data/coco/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"].reverse()
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"category 1 of those trained is 'bicycle' there and 'person'"):
        check_training(detection(root))
