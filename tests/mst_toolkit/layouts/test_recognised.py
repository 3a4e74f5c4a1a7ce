"""Every layout is recognised, with the line that is printed for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mst_toolkit.layouts import line, recognise, split

from . import drawn_data as drawn


def test_nothing_heavy_is_imported() -> None:
    """The help of every command would wait for torch."""
    code = "import sys, mst_toolkit.layouts; print([m for m in ('torch', 'mmengine', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_roboflow(tmp_path: Path) -> None:
    """An export as people download it would be refused, or its pseudo-class be trained; the line is UX.md's."""
    root = drawn.roboflow(tmp_path / "parts")
    before = (root / "train" / drawn.ROBOFLOW).read_bytes()
    found = recognise(root)
    assert line(found) == (
        "parts: Roboflow export, 6 train and 3 validation images, 12 objects: scratch 6, dent 6"
    )
    assert (found.task, found.classes, found.masks) == ("detection", ("scratch", "dent"), "all")
    assert "categories without an object are left out: parts" in found.notes
    notes = "\n".join(found.notes)
    assert (
        "renumbered; in memory, your file stays as it is" in notes
        and "12 annotations without an area" in notes
    )
    assert (root / "train" / drawn.ROBOFLOW).read_bytes() == before


def test_roboflow_group_named_as_a_class(tmp_path: Path) -> None:
    """A project called as its only class has that name twice, and would be refused for it."""
    root = drawn.roboflow(tmp_path / "parts")
    for split_name in ("train", "valid"):
        path = root / split_name / drawn.ROBOFLOW
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = "dent"
        path.write_text(json.dumps(content))
    assert recognise(root).classes == ("scratch", "dent")


def test_roboflow_without_validation(tmp_path: Path) -> None:
    """A small export has train/ alone and must be split by us."""
    root = drawn.roboflow(tmp_path / "parts")
    (root / "valid" / drawn.ROBOFLOW).unlink()
    found = recognise(root)
    assert found.val is None
    assert line(found) == "parts: Roboflow export, 6 images without a split, 12 objects: scratch 6, dent 6"


def test_coco(tmp_path: Path) -> None:
    """COCO's own folders would not be found."""
    found = recognise(drawn.coco_layout(tmp_path / "own"))
    assert line(found) == "own: COCO, 4 train and 2 validation images, 8 objects: cat 4, dog 4"
    assert found.val is not None and found.val.images == tmp_path / "own/val2017"


@pytest.mark.parametrize(
    ("name", "file", "folder", "layout"),
    [
        ("cvat", "annotations/instances_default.json", "images", "CVAT export"),
        ("cvat2", "annotations/instances_default.json", "images/default", "CVAT export"),
        ("studio", "result.json", ".", "Label Studio export"),
        ("mine", "labels.json", "data", "COCO file"),
    ],
)
def test_one_json(tmp_path: Path, name: str, file: str, folder: str, layout: str) -> None:
    """One JSON and one folder of images would not be found, or its images looked for elsewhere."""
    root = tmp_path / name
    prefix = "images/" if layout.startswith("Label") else ""
    content = drawn.coco([f"{prefix}{i}.jpg" for i in range(5)], ["a", "b"], polygons=False)
    drawn.write_coco(root / file, content, root / folder)
    found = recognise(root)
    assert line(found) == f"{name}: {layout}, 5 images without a split, 10 objects: a 5, b 5"
    assert found.masks == "none" and found.val is None
    assert "no object has a polygon: boxes alone are trained and scored" in found.notes
    assert (found.train.images / content["images"][0]["file_name"]).is_file()


def test_label_studio_backslashes(tmp_path: Path) -> None:
    r"""Label Studio on Windows writes ``images\name.jpg``."""
    content = drawn.coco([f"images/{i}.jpg" for i in range(3)], ["a"])
    drawn.write_coco(tmp_path / "result.json", content, tmp_path)
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("/", "\\")
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert recognise(tmp_path).train.images == tmp_path


def test_explicit_files(tmp_path: Path) -> None:
    """Files of any names and places could not be used."""
    for part, count in (("a", 3), ("b", 2)):
        content = drawn.coco([f"{part}{i}.png" for i in range(count)], ["x"], per_image=1)
        drawn.write_coco(tmp_path / f"{part}.json", content, tmp_path / f"pictures_{part}")
    found = recognise(
        None,
        "detection",
        train_json=tmp_path / "a.json",
        train_images=tmp_path / "pictures_a",
        val_json=tmp_path / "b.json",
    )
    assert line(found) == "pictures_a: COCO files, 3 train and 2 validation images, 3 objects: x 3"
    assert found.val is not None and found.val.images == tmp_path / "pictures_b"


@pytest.mark.parametrize("maps", ["masks", "labels", "annotations"])
def test_masks_with_a_split(tmp_path: Path, maps: str) -> None:
    """Two folders of images and maps would not be paired; the shares would not be those of the pixels."""
    found = recognise(drawn.masks(tmp_path / "cracks", [0, 0, 0, 255], maps=maps))
    assert line(found) == (
        "cracks: images and masks, 5 train and 5 validation images, 2 classes by pixels: "
        "background 75.0 %, object 25.0 %"
    )
    assert found.values == {0: 0, 255: 1}
    assert "label maps hold 0 and 255 only: 0 is background, 255 is object" in found.notes


def test_masks_in_folders_of_parts(tmp_path: Path) -> None:
    """train/images and train/masks, as many downloads have it."""
    for part in ("train", "valid"):
        drawn.picture(tmp_path / part / "images/a.jpg")
        drawn.mask(tmp_path / part / "masks/a.png", [0, 1])
    found = recognise(tmp_path)
    assert found.val is not None and (found.train.count, found.val.count) == (1, 1)


def test_ids_and_ignored(tmp_path: Path) -> None:
    """In {0, 1, 255} 255 would be a class, and in {0, 7, 11} the ids 1 to 6 would be classes without a pixel."""
    found = recognise(drawn.masks(tmp_path / "a", [0, 1, 255, 255]))
    assert (found.classes, found.values) == (("background", "object"), {0: 0, 1: 1})
    assert found.objects == {"background": 5 * 320, "object": 5 * 320}
    assert "255 is ignored: these pixels are neither trained nor scored" in found.notes
    found = recognise(drawn.masks(tmp_path / "b", [0, 7, 11]))
    assert (found.classes, found.values) == (("class 0", "class 7", "class 11"), {0: 0, 7: 1, 11: 2})


def test_palette_and_names(tmp_path: Path) -> None:
    """The indices of a palette's PNG are ids; its colors are those that classes are drawn in."""
    root = drawn.masks(tmp_path, [0, 1, 2], palette=[0, 0, 0, 200, 0, 0, 0, 0, 90])
    assert recognise(root).palette == ((0, 0, 0), (200, 0, 0), (0, 0, 90))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    assert recognise(root).classes == ("sky", "road", "car")


def test_masks_without_a_split(tmp_path: Path) -> None:
    """Two folders without a split are split by us; an image without a map is left out, and said."""
    root = drawn.masks(tmp_path / "flat", [0, 1], splits=(".",))
    drawn.picture(root / "images/lonely.jpg")
    found = recognise(root, "segmentation")
    assert (found.val, found.train.count) == (None, 5)
    assert "1 of 6 train images have no label map: left out" in found.notes
    assert line(split(found)).startswith("flat: images and masks, 4 train and 1 validation images, 2 classes")


def test_voc(tmp_path: Path) -> None:
    """VOC's lists decide the parts; its images without a segmentation are not in them."""
    for number in range(6):
        drawn.picture(tmp_path / f"JPEGImages/{number}.jpg")
        if number < 5:
            drawn.mask(tmp_path / f"SegmentationClass/{number}.png", [0, 3, 255])
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n4\n")
    found = recognise(tmp_path)
    assert found.layout == "VOC masks" and found.val is not None
    assert (found.train.names, found.val.names) == (("0.jpg", "1.jpg", "2.jpg"), ("3.jpg", "4.jpg"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "wall 10 20 30\ndoor #c80000\nignore 0 0 0\n"),
        ("classes.json", '{"wall": [10, 20, 30], "door": [200, 0, 0], "ignore": [0, 0, 0]}'),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nwall:10,20,30::\ndoor:200,0,0::\nignore:0,0,0::\n",
        ),
    ],
)
def test_colors_with_a_list(tmp_path: Path, name: str, text: str) -> None:
    """Colored maps with a list in any of three forms could not be used, or colors stand for wrong classes."""
    root = drawn.masks(tmp_path, [[10, 20, 30], [200, 0, 0], [0, 0, 0], [0, 0, 0]])
    (root / name).write_text(text)
    found = recognise(root)
    assert found.colors == ((10, 20, 30, 0), (200, 0, 0, 1), (0, 0, 0, 255))
    assert found.objects == {"wall": 5 * 320, "door": 5 * 320}


def test_gray_in_three_channels(tmp_path: Path) -> None:
    """A black and white picture saved as RGB would be taken for colors that need a list."""
    found = recognise(drawn.masks(tmp_path, [[0, 0, 0], [255, 255, 255]]))
    assert found.classes == ("background", "object")
    assert found.colors == ((0, 0, 0, 0), (255, 255, 255, 1))


def test_cityscapes(tmp_path: Path) -> None:
    """Cityscapes' folders would not be recognised, or its classes without a pixel be trained."""
    for part in ("train", "val"):
        drawn.picture(tmp_path / "city" / f"leftImg8bit/{part}/bonn/bonn_0_leftImg8bit.png")
        drawn.mask(
            tmp_path / "city" / f"gtFine/{part}/bonn/bonn_0_gtFine_labelTrainIds.png", [0, 10, 10, 255]
        )
    found = recognise(tmp_path / "city")
    assert line(found) == (
        "city: Cityscapes, 1 train and 1 validation images, 2 classes by pixels: sky 66.7 %, road 33.3 %"
    )


def test_photos(tmp_path: Path) -> None:
    """A folder at any depth, and a list, are photos; other files are named."""
    for number in range(3):
        drawn.picture(tmp_path / f"photos/{number % 2}/{number}.jpg", number)
    (tmp_path / "photos/notes.doc").write_text("x")
    found = recognise(tmp_path / "photos")
    assert line(found) == "photos: photos, 3 images"
    assert found.notes == ("left out: 1 .doc (not images)",)
    (tmp_path / "list.txt").write_text("photos/0/0.jpg\nphotos/1/1.jpg\n")
    assert line(recognise(tmp_path / "list.txt")) == "list.txt: list of photos, 2 images"
    assert recognise(drawn.coco_layout(tmp_path / "own"), "photos").train.count == 6
