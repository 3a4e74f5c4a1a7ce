"""Ambiguous and impossible data: one error each, with a code that the documentation explains."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.layouts import Found, Part, check, recognise, split, with_classes
from mst_toolkit.layouts.class_files import read_class_list

from . import drawn_data as drawn

ROOT = Path(__file__).parents[3]


def refused(*args: object, **how: object) -> str:
    """The message of a call to recognise that must fail."""
    with pytest.raises(UserError) as caught:
        recognise(*args, **how)  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) <= 4
    return message


def test_documentation_explains_every_code() -> None:
    """A user who looks up a code would find nothing, or read of an error that is not raised any more."""
    code = "\n".join(path.read_text() for path in sorted((ROOT / "mst_toolkit/layouts").glob("*.py")))
    page = (ROOT / "docs/data_layouts.md").read_text()
    assert sorted(set(re.findall(r'"(D\d\d)"', code))) == sorted(
        set(re.findall(r"^\| (D\d\d) \|", page, re.MULTILINE))
    )


def test_nothing_is_there(tmp_path: Path) -> None:
    """A misspelled path would be a traceback, or an empty data set."""
    (tmp_path / "phots").mkdir()
    assert f"{tmp_path / 'photos'} does not exist" in (message := refused(tmp_path / "photos", "detection"))
    assert "holds phots/" in message and "[D01]" in message


def test_photos_alone_have_no_labels(tmp_path: Path) -> None:
    """A fine-tuning on photos would start without labels."""
    drawn.picture(tmp_path / "a.jpg")
    assert "No labels for segmentation" in (message := refused(tmp_path, "segmentation"))
    assert "holds a.jpg" in message


def test_two_layouts_fit(tmp_path: Path) -> None:
    """One of two would be chosen without a word."""
    drawn.coco_layout(drawn.roboflow(tmp_path))
    message = refused(tmp_path)
    assert (
        "fits 2 layouts: Roboflow export (train/_annotations.coco.json, valid/_annotations.coco.json); COCO ("
        in message
    )
    assert "--train-json" in message and "[D02]" in message


def test_boxes_and_masks_fit(tmp_path: Path) -> None:
    """Data for both tasks must be asked for by task, and then be used."""
    drawn.masks(drawn.coco_layout(tmp_path), [0, 1])
    assert "--task detection or --task segmentation" in refused(tmp_path)
    assert recognise(tmp_path, "segmentation").layout == "images and masks"
    assert recognise(tmp_path, "detection").layout == "COCO"


def test_two_training_files(tmp_path: Path) -> None:
    """Of two exports in one folder one would be taken by its name."""
    drawn.coco_layout(tmp_path)
    text = (tmp_path / "annotations/instances_train2017.json").read_text()
    (tmp_path / "annotations/instances_train2014.json").write_text(text)
    assert "[D02]" in refused(tmp_path)


@pytest.mark.parametrize("labels", ["labels/train/a.txt", "labels/a.txt", "train/labels/a.txt"])
def test_yolo(tmp_path: Path, labels: str) -> None:
    """YOLO's layout would be taken for photos, or refused without the way out."""
    drawn.picture(tmp_path / labels.replace("labels", "images").replace(".txt", ".jpg"))
    (tmp_path / labels).parent.mkdir(parents=True)
    (tmp_path / labels).write_text("0 0.5 0.5 0.2 0.1\n")
    message = refused(tmp_path)
    assert f"YOLO's layout ({labels})" in message and "[D03]" in message
    assert "fiftyone convert" in message and "types.COCODetectionDataset" in message


def test_voc_boxes(tmp_path: Path) -> None:
    """VOC's XML files would be passed over, and the images be taken for photos."""
    drawn.picture(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation/>")
    assert "[D13]" in refused(tmp_path)


def test_images_are_not_found(tmp_path: Path) -> None:
    """A JSON whose images lie elsewhere must say how to name their folder."""
    content = drawn.coco(["a.jpg"], ["x"])
    drawn.write_coco(tmp_path / "data/one.json", content, tmp_path / "elsewhere")
    message = refused(tmp_path / "data")
    assert "a.jpg" in message and "--train-images FOLDER [D04]" in message


@pytest.mark.parametrize(
    ("val_names", "what"),
    [(("cat", "cow"), "dog only in"), (("dog", "cat"), "another order: the 1. is cat")],
)
def test_classes_of_train_and_val(tmp_path: Path, val_names: tuple[str, str], what: str) -> None:
    """Labels are numbered by a file's own order: classes would be confused in every score."""
    assert what in (message := refused(drawn.coco_layout(tmp_path, val_names=val_names)))
    assert "[D05]" in message


def test_some_polygons(tmp_path: Path) -> None:
    """A mask head would be trained on a part of the objects; with --boxes-only the data are used."""
    root = drawn.roboflow(tmp_path)
    path = root / "train" / drawn.ROBOFLOW
    content = json.loads(path.read_text())
    for annotation in content["annotations"][:5]:
        annotation["segmentation"] = []
    path.write_text(json.dumps(content))
    message = refused(root)
    assert "13 of 18 objects" in message and "5 have only a box" in message and "--boxes-only" in message
    assert recognise(root, boxes_only=True).masks == "none"


def test_no_object(tmp_path: Path) -> None:
    """An export without annotations would start a training on nothing."""
    drawn.write_coco(tmp_path / "result.json", drawn.coco(["a.jpg"], ["x"], per_image=0), tmp_path)
    assert "has no object: 0 annotations, 1 categories" in (message := refused(tmp_path))
    assert "[D07]" in message


def test_colors_without_a_list(tmp_path: Path) -> None:
    """Colors would be guessed; the template that is written must work once it is filled in."""
    root = drawn.masks(tmp_path / "colored", [[10, 20, 30], [200, 0, 0]])
    message = refused(root)
    assert "Found 2: #0a141e, #c80000" in message and "[D08]" in message
    template = root / "classes_template.txt"
    assert str(template) in message and "class_0 10 20 30\nclass_1 200 0 0" in template.read_text()
    template.rename(root / "classes.txt")
    assert recognise(root).classes == ("class_0", "class_1")


def test_colors_beyond_the_list(tmp_path: Path) -> None:
    """A color without a name would be ignored silently."""
    root = drawn.masks(tmp_path, [[10, 20, 30], [200, 0, 0]])
    (root / "classes.txt").write_text("a 10 20 30\nb 1 1 1\n")
    assert "1 colors that" in (message := refused(root)) and "#c80000 (200 0 0)" in message


@pytest.mark.parametrize(
    ("values", "classes", "what"),
    [
        (list(range(120)), "", "40 different values"),
        ([3, 3], "", "nothing to tell apart"),
        ([0, 1, 5], "a\nb\n", "hold the ids 5"),
    ],
)
def test_values_that_are_no_ids(
    tmp_path: Path, values: list[int], classes: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures, maps of one id, or ids beyond the list would be trained on."""
    monkeypatch.setattr("mst_toolkit.layouts.mask_meaning.MANY", 30)
    root = drawn.masks(tmp_path, values)
    if classes:
        (root / "classes.txt").write_text(classes)
    assert what in (message := refused(root)) and "[D09]" in message


def test_jpeg_maps(tmp_path: Path) -> None:
    """A JPEG changes ids at every border, whatever its name says."""
    root = drawn.masks(tmp_path, [0, 1])
    for path in root.glob("masks/*/*.png"):
        drawn.picture(path.with_suffix(".jpg"))
        path.with_suffix(".jpg").rename(path)
    assert "are stored with loss" in refused(root)


def test_maps_of_other_names(tmp_path: Path) -> None:
    """Images without any map of their name would leave nothing to train on."""
    root = drawn.masks(tmp_path, [0, 1])
    for path in sorted(root.glob("masks/train/*.png")):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    message = refused(root)
    assert "0.jpg needs 0.png" in message and "0_mask.png" in message and "[D10]" in message


def test_cityscapes_without_validation(tmp_path: Path) -> None:
    """The split of Cityscapes is official; one of our own would give a score that means something else."""
    drawn.picture(tmp_path / "leftImg8bit/train/bonn/bonn_0_leftImg8bit.png")
    drawn.mask(tmp_path / "gtFine/train/bonn/bonn_0_gtFine_labelTrainIds.png", [0, 10])
    assert "gtFine/val is missing" in (message := refused(tmp_path)) and "[D10]" in message


def test_another_task(tmp_path: Path) -> None:
    """Masks given to detection must say what they are good for."""
    message = refused(drawn.masks(tmp_path, [0, 1]), "detection")
    assert (
        "labels for segmentation" in message and "mst finetune segmentation" in message and "[D11]" in message
    )


def test_split_of_one_image(tmp_path: Path) -> None:
    """One image cannot be in both parts; nor are photos, or what has a split, split again."""
    drawn.write_coco(tmp_path / "result.json", drawn.coco(["a.jpg"], ["x"]), tmp_path)
    with pytest.raises(UserError, match=r"1 labelled images[\s\S]*D12"):
        split(recognise(tmp_path))
    with pytest.raises(UserError, match="D12"):
        split(recognise(drawn.roboflow(tmp_path / "r")))


@pytest.mark.parametrize("text", ["", "a\na\n", "a 1 2 3\nb\n", "a 1 2 3\nb 1 2 3\n", "a 300 2 3\n"])
def test_lists_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    """A list with a name twice would give two classes one name."""
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match="D15"):
        read_class_list(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    "how",
    [
        {"train_images": "x"},
        {"val_json": "x"},
        {"train_json": "own/annotations/instances_train2017.json", "val_images": "own/val2017"},
        {
            "train_json": "own/annotations/instances_train2017.json",
            "val_json": "own/annotations/instances_train2017.json",
        },
    ],
)
def test_explicit_files_that_do_not_suffice(
    tmp_path: Path, how: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option would be left out of account, or the training images be scored."""
    drawn.coco_layout(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    assert "[D16]" in refused(None, **how)


def test_parts_and_classes_that_are_not_there(tmp_path: Path) -> None:
    """A misspelled part or class would be a KeyError."""
    found = recognise(drawn.coco_layout(tmp_path))
    with pytest.raises(UserError, match="D17"):
        found.part("test")
    for names in ((), ("cat", "cat"), ("cow",)):
        with pytest.raises(UserError, match="D14"):
            with_classes(found, names)


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


@pytest.mark.parametrize(
    ("make", "file", "what"),
    [
        (drawn.roboflow, "train/train_1.jpg", "truncated JPEG"),
        (lambda root: drawn.masks(root, [0, 1]), "masks/val/2.png", "truncated PNG"),
        (lambda root: drawn.masks(root, [0, 1]), "images/train/3.jpg", "truncated JPEG"),
    ],
)
def test_faulty_files(tmp_path: Path, make: Callable[[Path], Path], file: str, what: str) -> None:
    """A truncated file would end a training hours later; whole data must have no fault."""
    root = make(tmp_path)
    assert [str(fault) for fault in check(recognise(root)) if not fault.warning] == []
    truncate(root / file)
    (fault,) = [fault for fault in check(recognise(root)) if not fault.warning]
    assert fault.path == root / file and what in fault.what and fault.remedy


def test_faulty_photo_and_missing_image(tmp_path: Path) -> None:
    """A photo that is cut off, and an image that a JSON names and nobody has, would be found in the middle of a run."""
    drawn.picture(tmp_path / "photos/a.jpg")
    drawn.picture(tmp_path / "photos/b.jpg")
    broken = truncate(tmp_path / "photos/b.jpg")
    (fault,) = check(recognise(tmp_path / "photos"))
    assert fault.path == broken and "Copy it again" in fault.remedy
    root = drawn.coco_layout(tmp_path / "own")
    (root / "train2017/000000000001.jpg").unlink()
    faults = [fault for fault in check(recognise(root)) if not fault.warning]
    assert [fault.path.name for fault in faults] == ["000000000001.jpg"]


def test_images_in_both_parts_are_said(tmp_path: Path) -> None:
    """A score on training images says nothing of new ones."""
    for part in ("train", "val"):
        content = drawn.coco([f"{i}.jpg" for i in range(2)], ["x"])
        drawn.write_coco(tmp_path / f"annotations/instances_{part}.json", content, tmp_path / part)
    (fault,) = check(recognise(tmp_path))
    assert fault.warning and "2 of 2 images" in str(fault)


def test_found_is_plain_data() -> None:
    """Reports write it down; a part knows its own name."""
    part = Part("train", Path("a"), None, 1)
    assert Found("photos", "photos", Path("a"), part).part("train") is part
