"""The built-in street scenes: reproducible, consistent between layouts, and hard for trivial baselines."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from PIL import Image
from pycocotools.coco import COCO

from examples.quickstart import street
from examples.quickstart.street_scenes import LOOKS
from examples.quickstart.street_things import MIN_PIXELS, THINGS, render
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.coco_file import coco_classes, read_coco
from mst_transfer.data.coco_rules import check_coco
from mst_transfer.data.pair_rules import (
    check_cityscapes,
    cityscapes_label_maps,
    cityscapes_present_classes,
)
from mst_transfer.evaluation.baselines import frequent_box_map, position_prior

TRAIN, VAL = 40, 12


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of seed 1."""
    out = tmp_path_factory.mktemp("street") / "data"
    street.generate(out, seed=1, train=TRAIN, val=VAL)
    return out


def digests(root: Path) -> dict[str, str]:
    """Relative path -> digest of every file below ``root``."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_depend_on_the_seed_alone(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines, or one and three workers, would draw different data from one seed."""
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    street.generate(tmp_path / "again", seed=1, train=TRAIN, val=VAL)
    assert digests(tmp_path / "again") == digests(scenes)


def test_longer_data_set_begins_with_the_shorter(scenes: Path, tmp_path: Path) -> None:
    """A scene would depend on how many others are asked for, and studies of data size would mix up two things."""
    street.generate(tmp_path / "few", seed=1, train=3, val=2)
    few, many = digests(tmp_path / "few"), digests(scenes)
    images = [name for name in few if name.endswith((".png", ".jpg"))]
    assert len(images) == 5 * 4
    assert all(few[name] == many[name] for name in images)


def test_seeds_and_splits_differ() -> None:
    """Val images seen in training, or three seeds that are one."""
    drawn = [
        render(np.random.default_rng([seed, split == "val", 0]), split, 64, 128)[0].tobytes()
        for seed in (1, 2)
        for split in ("train", "val")
    ]
    assert len(set(drawn)) == 4


def test_val_appearance_is_not_in_train() -> None:
    """Val would measure recall of training hues and periods instead of transfer to new ones."""
    train, val = LOOKS["train"], LOOKS["val"]
    for name in ("facades", "vehicles", "foliage"):
        for low, high in getattr(train, name):
            assert all(high <= start or end <= low for start, end in getattr(val, name)), name
    for name in ("window", "brick", "tile", "rib", "leaf"):
        assert getattr(train, name)[1] < getattr(val, name)[0], name


def test_layouts_pass_the_checks(scenes: Path) -> None:
    """The quickstart's own data would be refused by its own checks, or carry other classes than its configs."""
    for split, count in (("train", TRAIN), ("val", VAL)):
        annotations = f"annotations/instances_{split}2017.json"
        check_coco(scenes / "coco", annotations, f"{split}2017", tuple(THINGS))
        check_cityscapes(scenes / "cityscapes", split)
        images = open_source(scenes / "coco" / f"{split}2017")
        images.check()
        assert len(images) == count
        assert cityscapes_present_classes(scenes / "cityscapes", split) == (
            *("road", "sidewalk", "building", "vegetation", "sky"),
            *("person", "car", "truck", "bus", "bicycle"),
        )
    assert coco_classes(read_coco(scenes / "coco/annotations/instances_val2017.json")) == tuple(THINGS)


def test_instances_agree_with_label_maps(scenes: Path) -> None:
    """Masks that ignore occlusion, boxes beside their masks, or a class that is a car here and a bus there."""
    coco = COCO(scenes / "coco/annotations/instances_train2017.json")
    maps = cityscapes_label_maps(scenes / "cityscapes", "train")
    for (image_id, image), path in zip(sorted(coco.imgs.items()), maps, strict=True):
        assert path.name.startswith(Path(image["file_name"]).stem)
        labels = np.asarray(Image.open(path))
        assert labels.shape == (image["height"], image["width"]) == (128, 256)
        covered = np.zeros(labels.shape, int)
        for annotation in coco.imgToAnns[image_id]:
            mask = coco.annToMask(annotation).astype(bool)
            covered += mask
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == mask.sum() >= MIN_PIXELS
            assert annotation["iscrowd"] == 0
            assert (labels[mask] == tuple(THINGS.values())[annotation["category_id"] - 1]).all()
        assert covered.max() <= 1
        leftover = np.isin(labels, tuple(THINGS.values())) & (covered == 0)
        assert leftover.sum() < 8 * MIN_PIXELS  # only remnants too small to be instances


def test_ids_are_those_of_cityscapes(scenes: Path) -> None:
    """Label maps that another tool of Cityscapes would read as other classes."""
    official = {label.trainId: label.id for label in cityscapes_labels if 0 <= label.trainId < 255}
    names = {label.name: label.trainId for label in cityscapes_labels}
    assert {name: names[name] for name in THINGS} == THINGS
    assert {index: official[index] for index in street.LABEL_IDS} == street.LABEL_IDS
    for path in cityscapes_label_maps(scenes / "cityscapes", "val"):
        train_ids = np.asarray(Image.open(path))
        label_ids = np.asarray(Image.open(str(path).replace("labelTrainIds", "labelIds")))
        assert (np.vectorize(official.get)(train_ids) == label_ids).all()


def test_both_layouts_show_the_same_scene(scenes: Path) -> None:
    """Detection and segmentation results of one run would be about different pictures."""
    name = "street_000000"
    jpeg = np.asarray(Image.open(scenes / f"coco/val2017/{name}.jpg"), float)
    png = np.asarray(Image.open(scenes / f"cityscapes/leftImg8bit/val/street/{name}_leftImg8bit.png"), float)
    assert np.abs(jpeg - png).mean() < 8


def test_things_are_large_and_of_every_class(scenes: Path) -> None:
    """A small detector could not reach its floor: classes too rare, or things of a few pixels."""
    content = json.loads((scenes / "coco/annotations/instances_train2017.json").read_text())
    longer = np.array([max(entry["bbox"][2:]) for entry in content["annotations"]])
    kinds = np.bincount([entry["category_id"] for entry in content["annotations"]], minlength=6)[1:]
    assert kinds.min() >= 0.05 * kinds.sum()
    assert ((longer >= 14) & (longer <= 100)).mean() > 0.85
    assert 3 <= len(longer) / TRAIN <= 8


def test_trivial_baselines_fail(scenes: Path) -> None:
    """A per-pixel prior or one fixed box per class would score well: the numbers would measure layout, not sight."""
    classes = cityscapes_present_classes(scenes / "cityscapes", "train")
    prior = position_prior(scenes / "cityscapes", "val", classes).mean_iou
    assert prior is not None and prior < 0.2
    files = (scenes / f"coco/annotations/instances_{split}2017.json" for split in ("train", "val"))
    assert frequent_box_map(*files) < 2


def test_complete_data_are_kept_and_changed_ones_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The quickstart would draw everything again at each start, or train on the data of another seed."""
    out = tmp_path / "data"
    street.generate(out, seed=1, train=2, val=1, height=64, width=96)
    first, stamp = digests(out), (out / street.MARKER).stat().st_mtime_ns
    street.generate(out, seed=1, train=2, val=1, height=64, width=96)
    assert (out / street.MARKER).stat().st_mtime_ns == stamp
    assert "complete" in capsys.readouterr().out
    street.generate(out, seed=2, train=2, val=1, height=64, width=96)
    assert digests(out) != first
    assert not out.with_name("data.part").exists()


def test_interrupted_run_leaves_no_half_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed while drawing would leave a folder that looks complete."""
    out = tmp_path / "data"
    monkeypatch.setattr(street, "_coco_json", lambda scenes: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        street.generate(out, seed=1, train=1, val=1, height=64, width=96)
    assert not out.exists()
    monkeypatch.undo()
    street.generate(out, seed=1, train=1, val=1, height=64, width=96)
    assert len(digests(out)) == 2 * 4 + 2 + 1


def test_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    """A mistyped path would delete the user's files."""
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="Choose another folder"):
        street.generate(tmp_path, seed=1, train=1, val=1)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"height": 8}, {"seed": -1}])
def test_impossible_sizes_are_named(tmp_path: Path, wrong: dict[str, int]) -> None:
    """A negative seed or an empty split would end in a traceback."""
    with pytest.raises(UserError, match="need train and val"):
        street.generate(tmp_path / "data", **({"seed": 1} | wrong))


@pytest.mark.parametrize("size", [(128, 256), (96, 96), (200, 320), (33, 47)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    """Another image size, or an unlucky scene, would crash the drawing code."""
    for index in range(12):
        image, labels, _ = render(np.random.default_rng(index), "val", *size)
        assert image.shape == (*size, 3)
        assert set(np.unique(labels)) <= set(street.LABEL_IDS)
