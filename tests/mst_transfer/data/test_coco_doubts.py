"""What may be wrong with annotations is one warning with its number; what is not trained is not looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.coco_names import named_alike
from mst_transfer.data.coco_rules import check_coco, entry_problems
from mst_transfer.data.image_rules import unread_problems
from mst_transfer.data.prepare import prepare
from tests.promises.coco_set import ANNOTATION_FILE, IMAGE_FOLDER, clean_coco

Edit = Callable[[dict[str, Any]], object]
FILE = Path(ANNOTATION_FILE)


def each(edit: Edit, step: int = 1) -> Edit:
    """Edits every annotation, or every step-th."""
    return lambda content: [edit(annotation) for annotation in content["annotations"][::step]]


def shares(annotation: dict[str, Any]) -> None:
    """Boxes in per cent, and areas in pixels; no masks."""
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [100 * x / 192, 100 * y / 144, 100 * width / 192, 100 * height / 144]
    annotation["segmentation"] = []


def box_as_area(annotation: dict[str, Any]) -> None:
    annotation.update(area=annotation["bbox"][2] * annotation["bbox"][3], segmentation=[])


def shift(annotation: dict[str, Any]) -> None:
    annotation["segmentation"] = [[value + 12 for value in annotation["segmentation"][0]]]


def corners(annotation: dict[str, Any]) -> None:
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [x, y, x + width, y + height]


def line(annotation: dict[str, Any]) -> None:
    x, y, width, height = annotation["bbox"]
    annotation["segmentation"] = [[x, y, x + width, y + height, x, y]]


def again(content: dict[str, Any], **changes: Any) -> None:
    content["annotations"] += [
        {**annotation, "id": 5000 + index, **changes}
        for index, annotation in enumerate(content["annotations"][:20])
    ]


def crowds(content: dict[str, Any]) -> None:
    again(content, iscrowd=1)
    again(content, iscrowd=1)


AREA, FAR = (
    "of 50 areas are not those of masks or boxes",
    "of 50 boxes are far from the extents of their masks",
)
DOUBTS: dict[str, tuple[Edit, str]] = {
    "areas of 1": (each(lambda a: a.update(area=1)), f"50 {AREA}"),
    "areas x 1000": (each(lambda a: a.update(area=1000 * a["area"])), f"50 {AREA}"),
    "areas as shares": (each(lambda a: a.update(area=a["area"] / (192 * 144))), f"50 {AREA}"),
    "a fifth of the areas": (each(lambda a: a.update(area=1), 5), f"10 {AREA}"),
    "pixels of boxes in per cent": (each(shares), AREA),
    "areas of boxes": (each(box_as_area), ""),
    "areas of polygons without masks": (each(lambda a: a.update(segmentation=[])), ""),
    "some masks shifted": (each(shift, 5), FAR),
    "some boxes as corners": (each(corners, 10), FAR),
    "loose boxes": (
        each(lambda a: a["bbox"].__setitem__(slice(2, 4), [1.2 * side for side in a["bbox"][2:]])),
        "",
    ),
    "masks without a pixel": (each(line, 3), "17 masks cover no pixel: annotation 1, annotation 4"),
    "objects twice": (again, "20 annotations repeat another one's image, category, box and mask"),
    "of another category": (
        lambda c: again(c, category_id=3 - c["annotations"][0]["category_id"]),
        "annotations repeat",
    ),
    "with another mask": (lambda c: again(c, segmentation=[[1, 1, 190, 1, 190, 140, 1, 140]]), ""),
    "crowds twice": (crowds, ""),
}


@pytest.mark.parametrize("face", DOUBTS)
def test_doubts_are_one_warning_in_all_tools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], face: str
) -> None:
    """A score would be lower than it is, or hold other sizes of objects, and nobody would look at the file."""
    edit, said = DOUBTS[face]
    content = clean_coco(tmp_path)
    edit(content)
    (tmp_path / FILE).write_text(json.dumps(content))
    masks = all(annotation["segmentation"] for annotation in content["annotations"])
    check_coco(tmp_path, FILE, IMAGE_FOLDER, masks=masks)
    findings, _ = prepare("coco", tmp_path, any_count=True, boxes_only=not masks)
    printed = [text for text in capsys.readouterr().out.splitlines() if "warning: " in text]
    printed = [text for text in printed if "reach out of their image" not in text]
    doubts = [warning for warning in findings.warnings if warning.kind == "doubtful"]
    if face == "with another mask":  # whose box is that of the first mask
        said = "of 70 boxes are far"
    assert len(doubts) == len(printed) == bool(said)
    if said:
        assert said in printed[0] and printed[0] == f"warning: {doubts[0]}"


UNUSABLE: dict[str, Edit] = {
    "two points": lambda a: a.update(segmentation=[a["segmentation"][0][:4]]),
    "odd": lambda a: a.update(segmentation=[a["segmentation"][0][:-1]]),
    "elsewhere": lambda a: a.update(segmentation=[[1000 + value for value in a["segmentation"][0]]]),
    "another size": lambda a: a.update(segmentation={"size": [1, 1], "counts": [1]}),
    "no numbers": lambda a: a.update(segmentation=[["a"] * 6]),
    "no mask": lambda a: a.update(segmentation="mask"),
}


@pytest.mark.parametrize("face", UNUSABLE)
def test_masks_that_nothing_uses_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], face: str
) -> None:
    """A training of boxes would be refused because of masks that it does not read."""
    content = clean_coco(tmp_path)
    for annotation in content["annotations"]:
        UNUSABLE[face](annotation)
    (tmp_path / FILE).write_text(json.dumps(content))
    check_coco(tmp_path, FILE, IMAGE_FOLDER)
    assert "masks are not used" in capsys.readouterr().out
    assert list(entry_problems(tmp_path / FILE, content, masks=False)) == []
    with pytest.raises(UserError, match="annotations have"):
        check_coco(tmp_path, FILE, IMAGE_FOLDER, masks=True)


OTHERS: dict[str, Edit] = {
    **UNUSABLE,
    "no box": lambda a: a.update(bbox=[1, 2]),
    "no area": lambda a: a.update(area="large"),
    "box outside": lambda a: a.update(bbox=[900, 900, 20, 20]),
    "crowd of 2": lambda a: a.update(iscrowd=2),
}


@pytest.mark.parametrize("face", OTHERS)
def test_categories_that_are_not_trained_need_not_be_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], face: str
) -> None:
    """Objects that no one uses would stop a training of the others."""
    content = clean_coco(tmp_path)
    for annotation in content["annotations"]:
        if annotation["category_id"] == 2:
            OTHERS[face](annotation)
    (tmp_path / FILE).write_text(json.dumps(content))
    check_coco(tmp_path, FILE, IMAGE_FOLDER, ("box",), masks=True)
    assert "warning" not in capsys.readouterr().out
    assert list(entry_problems(tmp_path / FILE, content, masks=True, classes=("box",))) == []


NAMES = {
    r"C:\photos\scene1.jpg": "scene1.jpg",
    "https://photos.example/scene1.jpg?v=1": "scene1.jpg",
    "scene%31.jpg": "scene1.jpg",
    "train2017/scene1.jpg": "scene1.jpg",
    "scene1.png": "scene1.jpg",
    "Scene1": "scene1.jpg",
    "scene2.jpg": None,
    "": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_a_file_is_like(tmp_path: Path, name: str) -> None:
    """Who wrote other names would be told to copy again what is there."""
    (tmp_path / "scene1.jpg").touch()
    assert named_alike(tmp_path, [name]).get(name) == NAMES[name]


def test_one_file_under_two_names(tmp_path: Path) -> None:
    """It would be trained twice, each time with the objects of the other entry as background."""
    content = clean_coco(tmp_path)
    first = content["images"][0]
    content["images"].append(
        {**first, "id": 99, "file_name": str(tmp_path / IMAGE_FOLDER / first["file_name"])}
    )
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"1 files are the image of several ids: .*scene0001\.jpg"):
        check_coco(tmp_path, FILE, IMAGE_FOLDER)


def test_background_images_beside_another_file(tmp_path: Path) -> None:
    """A file of background images alone could not be joined with one of objects."""
    content = clean_coco(tmp_path)
    del content["annotations"]
    for objects in ({}, {"annotations": []}):
        (tmp_path / FILE).write_text(json.dumps({**content, **objects}))
        check_coco(tmp_path, FILE, IMAGE_FOLDER, alone=False)
        with pytest.raises(UserError, match="no entries under 'annotations'"):
            check_coco(tmp_path, FILE, IMAGE_FOLDER)


@pytest.mark.parametrize(
    "name", ["a.tga", "a.pcx", "a.dds", "a.sgi", "a.ico", "a.bmp", "b.bmp", "b.tif", "b.webp"]
)
def test_formats_that_training_does_not_read(tmp_path: Path, name: str) -> None:
    """A training would end in a traceback at the first such image."""
    path = tmp_path / name
    Image.new("RGB", (32, 32)).save(path, format="TGA" if name == "a.bmp" else None)
    assert len(list(unread_problems([path]))) == name.startswith("a")
