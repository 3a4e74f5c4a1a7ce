"""Own data: classes are named once, and compared with the data before anything is trained."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from examples.quickstart import street
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.datasets import FolderSegmentation
from mst_transfer.data.layouts import folder_pairs
from mst_transfer.data.prepare import prepare
from mst_transfer.data.used_labels import check_labels
from mst_transfer.training.checks import check_training

ROOT = Path(__file__).parents[3]
DETECT, SEGMENT = "coco/mask_rcnn_own-data.py", "cityscapes/upernet_own-data.py"
NAMES = ("person", "car", "truck", "bus", "bicycle")  # of the built-in scenes' JSON


def own_config(tmp_path: Path, name: str, classes: tuple[str, ...], data_root: Path) -> Config:
    """The shipped config copied and edited as its head says."""
    text = (ROOT / "configs" / name).read_text()
    base = re.search(r'_base_ = "(.*)"', text)
    assert base is not None
    text = text.replace(base[1], str((ROOT / "configs" / name).parent / base[1]))
    text, edits = re.subn(r"^classes = .*$", f"classes = {classes!r}", text, flags=re.MULTILINE)
    assert edits == 1
    path = tmp_path / "mine.py"
    path.write_text(text)
    return load_config(path, {"data_root": str(data_root), "model.backbone.init_cfg": None})


def check_folder_pair(images: Path, maps: Path) -> None:
    """What training does with two folders of three classes."""
    prefix = {"img_path": str(images), "seg_map_path": str(maps)}
    dataset = FolderSegmentation(data_prefix=prefix, metainfo={"classes": ("x", "y", "z")}, pipeline=[])
    check_labels(dataset, "train", trains=True)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    street.generate(tmp_path / "data", seed=2, train=2, val=1, height=48, width=64)
    return tmp_path / "data/coco"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Three classes and the ignored id; images of two formats, one in a sub-folder."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a.jpg", "deep/b.png"):
            image = tmp_path / "pair/images" / split / name
            label = (tmp_path / "pair/labels" / split / name).with_suffix(".png")
            for path, pixels in (
                (image, rng.integers(0, 256, (48, 64, 3), np.uint8)),
                (label, rng.choice(np.array([0, 1, 2, 255], np.uint8), (48, 64))),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return tmp_path / "pair"


def test_heads_and_splits_follow_the_one_line_of_classes(tmp_path: Path) -> None:
    """A head or a split would keep the default classes, and train or score other labels."""
    classes = ("one", "two", "three", "four")
    for name, heads in (
        (DETECT, ("roi_head.bbox_head", "roi_head.mask_head")),
        (SEGMENT, ("decode_head", "auxiliary_head")),
    ):
        cfg = own_config(tmp_path, name, classes, Path("/mine"))
        for head in heads:
            node = cfg.model
            for part in head.split("."):
                node = node[part]
            assert node.num_classes == 4, head
        for split in ("train", "val", "test"):
            dataset = cfg[f"{split}_dataloader"].dataset
            assert dataset.metainfo.classes == classes and dataset.data_root == "/mine/"
    detection = own_config(tmp_path, DETECT, classes, Path("/mine"))
    for evaluator in (detection.val_evaluator, detection.test_evaluator):
        assert evaluator.ann_file == "/mine/annotations/instances_val2017.json"


def test_coco_categories_are_compared_before_training(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt category would train on nothing, one forgotten be left out and nobody know."""
    check_training(own_config(tmp_path, DETECT, NAMES, coco))
    assert "not trained" not in capsys.readouterr().out
    few = own_config(tmp_path, DETECT, ("person", "bus"), coco)
    with pytest.raises(UserError, match=r"1 of 7 objects are used; .* 6 of other classes"):
        check_training(few)
    few.allow_unused = True
    check_training(few)
    assert "3 of 5 categories are not trained: car, truck, bicycle" in capsys.readouterr().out
    path = coco / "annotations/instances_train2017.json"
    with pytest.raises(UserError, match=f"{path}: has no category lorry; it has person, car, truck"):
        check_training(own_config(tmp_path, DETECT, ("person", "lorry"), coco))
    cfg = own_config(tmp_path, DETECT, NAMES, coco)
    cfg.model.roi_head.mask_head.num_classes = 80
    with pytest.raises(UserError, match=r"mask_head.num_classes=80, but the data set .* has 5 classes"):
        check_training(cfg)


def test_ids_of_label_maps_are_compared_before_training(pair: Path, tmp_path: Path) -> None:
    """An id beyond the classes would be an assertion on a GPU, a forgotten class a head of the wrong size."""
    check_training(own_config(tmp_path, SEGMENT, ("x", "y", "z"), pair))
    with pytest.raises(
        UserError, match=r"labels/train/a.png: has [0-9,]+ pixels of the unknown id 2 .*0..1 and 255"
    ):
        check_training(own_config(tmp_path, SEGMENT, ("x", "y"), pair))
    cfg = own_config(tmp_path, SEGMENT, ("x", "y", "z"), pair)
    cfg.model.auxiliary_head.num_classes = 19
    with pytest.raises(UserError, match=r"auxiliary_head.num_classes=19, .* has 3 classes"):
        check_training(cfg)


def test_folder_pairs_are_complete_and_unambiguous(pair: Path) -> None:
    """An image would be trained with another's labels, or stop an epoch where it has none."""
    images, labels = pair / "images/train", pair / "labels/train"
    check_folder_pair(images, labels)
    expected = [(images / "a.jpg", labels / "a.png"), (images / "deep/b.png", labels / "deep/b.png")]
    assert list(zip(*folder_pairs(images, labels), strict=True)) == expected
    (labels / "deep/b.png").unlink()
    with pytest.raises(
        UserError, match=r"labels/train/deep/b.png: does not exist.*train/deep/b.png\. Unpack"
    ):
        check_folder_pair(images, labels)
    shutil.copy(images / "deep/b.png", images / "a.png")
    with pytest.raises(UserError, match="by their suffix only"):
        folder_pairs(images, labels)
    with pytest.raises(UserError, match=r"absent.*does not exist"):
        check_folder_pair(images, pair / "absent")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_that_its_camera_turned_has_an_upright_map(pair: Path, orientation: int) -> None:
    """A sound upright map would be refused, or a sideways one accepted and training stop at the first batch."""
    from mmcv.transforms import LoadImageFromFile

    photo, label = pair / "images/train/a.jpg", pair / "labels/train/a.png"
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.open(photo).save(photo, exif=exif)  # 48x64 as stored
    upright = LoadImageFromFile()({"img_path": str(photo)})["img"].shape[:2]
    assert upright == ((48, 64) if orientation < 5 else (64, 48))
    for size in ((48, 64), (64, 48)):
        Image.fromarray(np.zeros(size, np.uint8)).save(label, exif=exif)  # a map is never turned
        findings, _ = prepare("pair", pair, classes=3)
        said = [problem.what for problem in findings.problems]
        if size == upright:
            assert said == []
            check_folder_pair(photo.parent, label.parent)
        else:
            assert len(said) == 1 and "height x width" in said[0]
            with pytest.raises(UserError) as error:
                check_folder_pair(photo.parent, label.parent)
            assert said[0] in str(error.value) and str(label) in str(error.value)


def test_the_data_set_hands_out_the_maps_as_they_are(pair: Path) -> None:
    """Ids would be shifted or mapped on the way to the loss."""
    from mmseg.datasets.transforms import LoadAnnotations

    prefix = {"img_path": "images/val", "seg_map_path": "labels/val"}
    dataset = FolderSegmentation(
        data_root=str(pair), data_prefix=prefix, metainfo={"classes": ("x", "y", "z")}, pipeline=[]
    )
    assert len(dataset) == 2 and dataset.metainfo["classes"] == ("x", "y", "z")
    for index, name in enumerate(("a.png", "deep/b.png")):
        loaded = LoadAnnotations()(dataset.get_data_info(index))["gt_seg_map"]
        assert (loaded == np.array(Image.open(pair / "labels/val" / name))).all()
    with pytest.raises(UserError, match="has no classes"):
        FolderSegmentation(data_root=str(pair), data_prefix=prefix)


def test_a_pair_of_folders_trains(pair: Path, tmp_path: Path) -> None:
    """The config's parts would not fit each other; one iteration at a small size through tools/train.py."""
    own_config(tmp_path, SEGMENT, ("x", "y", "z"), pair)
    spec = importlib.util.spec_from_file_location("tools_train", ROOT / "tools/train.py")
    assert spec is not None and spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
    train.main(
        [
            *(str(tmp_path / "mine.py"), "--work-dir", str(tmp_path / "run"), "--cfg-options"),
            *(f"data_root={pair}", "model.backbone.init_cfg=None", "train_cfg.max_iters=1"),
            *(
                f"+model.backbone.model_args.{key}={json.dumps(v).replace(' ', '')}"
                for key, v in sizes.items()
            ),
            *("model.decode_head.in_channels=[8,16,32,64]", "model.auxiliary_head.in_channels=32"),
            *("model.decode_head.channels=8", "model.auxiliary_head.channels=8"),
            *("train_dataloader.num_workers=0", "model.data_preprocessor.size=(64,64)"),
            *("train_dataloader.dataset.pipeline.2.scale=(64,48)",),
            *("train_dataloader.dataset.pipeline.3.crop_size=(64,64)",),
        ]
    )
    assert (tmp_path / "run/latest.pth").is_file()
