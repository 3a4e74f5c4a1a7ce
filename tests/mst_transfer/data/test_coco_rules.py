"""Entries of a COCO JSON that training or its validation cannot use: refused before both, with number and example."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.quickstart import street
from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.coco_rules import check_coco, entry_problems
from mst_transfer.data.prepare import prepare
from mst_transfer.data.reading import Reader

Edit = Callable[[dict[str, Any]], Any]
TRAIN, VAL = (f"annotations/instances_{split}2017.json" for split in ("train", "val"))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    street.generate(tmp_path, seed=2, train=2, val=1, height=48, width=64)
    return tmp_path / "coco"


def edited(path: Path, edit: Edit) -> dict[str, Any]:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return dict(content)


def names_as_ids(content: dict[str, Any]) -> None:
    """Image ids that are names."""
    for image in content["images"]:
        image["id"] = f"image {image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"


FAULTS: dict[str, tuple[Edit, str]] = {
    "image id twice": (
        lambda c: c["images"].append(dict(c["images"][0], file_name="other.jpg")),
        r"1 ids of 'images' are used twice .*Number the images",
    ),
    "image ids that are names": (names_as_ids, r"\d ids of 'images' .* whole numbers, .*: 'image \d"),
    "unknown category": (
        lambda c: c["annotations"][0].update(category_id=77),
        r"1 annotations .*category_id 77\. .*correct the ids",
    ),
    "unknown image": (
        lambda c: c["annotations"][1].update(image_id=999),
        r"1 annotations .*image_id 999\. .*remove these",
    ),
    "short box": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
        r"1 boxes are not \[x, y, width, height\]",
    ),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), "'annotations' lacks bbox"),
    "no file": (lambda c: c["images"][0].pop("file_name"), "'images' lacks file_name"),
    "names for images": (lambda c: c.update(images=["a.jpg"]), "'images' lacks id, file_name"),
    "no height": (
        lambda c: c["images"][0].update(height=None),
        r"1 images have a width or height that is not a whole number from 1: street_\d+\.jpg\. Write",
    ),
    "no number in a box": (
        lambda c: c["annotations"][1].update(bbox=[1.0, float("nan"), 5.0, 5.0]),
        r"1 boxes are not .* finite .*: annotation \d+ -> bbox \[1\.0, nan, 5\.0, 5\.0\]\. Correct",
    ),
    "no number as area": (
        lambda c: c["annotations"][1].update(area="large"),
        r"1 areas are not finite numbers: annotation \d+ -> area large\. .*remove 'area'",
    ),
    "category name twice": (
        lambda c: c["categories"][1].update(name=c["categories"][0]["name"]),
        r"1 category names are used twice: 'person'\. Rename or merge",
    ),
    "no mask": (
        lambda c: [a.pop("segmentation") for a in c["annotations"][:2]],
        r"2 annotations have no mask .*: annotation \d+, annotation \d+\. Add the masks, .*train boxes only",
    ),
    "empty mask": (lambda c: c["annotations"][0].update(segmentation=[]), "1 annotations have no mask"),
    "mask of two points": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
        r"1 annotations have a polygon of less than three points: annotation \d+\. Correct",
    ),
}


@pytest.mark.parametrize("split", [TRAIN, VAL])
@pytest.mark.parametrize("name", FAULTS)
def test_what_training_cannot_use(coco: Path, name: str, split: str) -> None:
    """prepare_data would find no problem, and training end in a traceback, or lose objects without a word."""
    edit, message = FAULTS[name]
    edited(coco / split, edit)
    with pytest.raises(UserError, match=message) as error:
        check_coco(coco, split, split[22:-5], masks=True)
    assert str(error.value).startswith(f"{coco / split}: ")
    findings, _ = prepare("coco", coco, any_count=True)
    (problem,) = findings.problems
    assert (problem.kind, problem.path) == ("entries", coco / split)
    assert f"{problem.path}: {problem.what}. {problem.remedy}" == str(error.value)


@pytest.mark.parametrize("key", ["categories", "annotations"])
def test_lists_without_an_entry(coco: Path, key: str) -> None:
    """A results file, or one without annotations, would end in a KeyError."""
    edited(coco / TRAIN, lambda content: content[key].clear())
    with pytest.raises(UserError, match=rf"{TRAIN} has no entries under '{key}'"):
        check_coco(coco, TRAIN, "train2017")


def test_faults_of_several_kinds_are_all_named(coco: Path) -> None:
    """A file would be mended and checked once for each of its faults."""

    def edit(content: dict[str, Any]) -> None:
        for name in ("no number in a box", "category name twice", "empty mask"):
            FAULTS[name][0](content)

    found = entry_problems(coco / TRAIN, edited(coco / TRAIN, edit), masks=True)
    assert [problem.what.split()[1] for problem in found] == ["category", "boxes", "annotations"]


def test_boxes_without_masks_suffice_for_boxes(coco: Path) -> None:
    """Data sets that only have boxes could not be prepared, or trained on with a config of boxes."""
    for split in (TRAIN, VAL):
        edited(coco / split, lambda content: [a.pop("segmentation") for a in content["annotations"]])
    check_coco(coco, TRAIN, "train2017")
    findings, _ = prepare("coco", coco, any_count=True, boxes_only=True)
    assert findings.problems == []


def test_run_lengths_are_masks(coco: Path) -> None:
    """COCO's crowds would be refused: their masks are run lengths, of lists or of text."""
    rles = ({"size": [48, 64], "counts": [10, 20, 3042]}, {"size": [48, 64], "counts": ":d0Ro2"})

    def edit(content: dict[str, Any]) -> None:
        for annotation, rle in zip(content["annotations"], rles, strict=False):
            annotation.update(segmentation=rle, bbox=[0, 10, 1, 20], iscrowd=1)

    assert list(entry_problems(coco / TRAIN, edited(coco / TRAIN, edit), masks=True)) == []


@pytest.mark.parametrize(
    "change",
    [{"ignore": 1}, {"iscrowd": 1}, {"bbox": [3.0, 3.0, 0.5, 9.0]}],
    ids=lambda change: next(iter(change)),
)
def test_nothing_left_to_train_on(coco: Path, change: dict[str, Any]) -> None:
    """A run would train for days on no object and end with code 0 and mAP 0."""
    edited(coco / TRAIN, lambda content: [a.update(change) for a in content["annotations"][1:]])
    check_coco(coco, TRAIN, "train2017")  # one object is left
    content = edited(coco / TRAIN, lambda content: content["annotations"][0].update(change))
    count = len(content["annotations"])
    with pytest.raises(
        UserError, match=rf"no object to train on .*of {count} annotations {count} are"
    ) as error:
        check_coco(coco, TRAIN, "train2017")
    assert str(coco / TRAIN) in str(error.value) and "Correct the boxes, the classes" in str(error.value)


def test_no_object_of_the_classes(coco: Path) -> None:
    """Classes that occur nowhere in the file would be trained for days."""

    def edit(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 99, "name": "tram"})

    edited(coco / TRAIN, edit)
    with pytest.raises(UserError, match=r"no object to train on .* 0 are of the classes trained"):
        check_coco(coco, TRAIN, "train2017", ["tram"])


def test_boxes_as_two_corners_without_masks(coco: Path) -> None:
    """Where there is no mask to compare them with, boxes would be clipped at the image's edges, or left out."""

    def edit(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            annotation.update(bbox=[x, y, x + width, y + height], segmentation=[])

    edited(coco / TRAIN, edit)
    with pytest.raises(
        UserError, match=r"boxes leave their image, and all boxes fit as \[left, top, right, b"
    ):
        check_coco(coco, TRAIN, "train2017")


def test_a_refusal_waits_for_no_later_rule(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong class name would be said after every one of 118,287 images had been looked at."""
    monkeypatch.setattr(Reader, "images", lambda *_, **__: pytest.fail("images were looked at"))
    with pytest.raises(UserError, match="has no category bird"):
        check_coco(coco, TRAIN, "train2017", ("person", "bird"))
