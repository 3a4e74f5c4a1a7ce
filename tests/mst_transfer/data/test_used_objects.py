"""What a detection data set uses is said in one line that agrees with mmdet; less than half is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.detection import CocoDetection
from mst_transfer.data.used_objects import check_objects

Change = Callable[[dict[str, Any]], object]


def content() -> dict[str, Any]:
    """Four images of 64 x 48 with three objects each: two of class a, one of class b."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(1, 5)]
    annotations = [
        {"image_id": image["id"], "category_id": 1 + (place == 2), "bbox": [2 + 20 * place, 4, 16, 16]}
        for image in images
        for place in range(3)
    ]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def built(
    root: Path, change: Change | None = None, classes: tuple[str, ...] = ("a", "b"), **options: Any
) -> Any:
    """mmdet's data set of the changed content, filtered as in the configs."""
    found = content()
    if change is not None:
        change(found)
    (root / "a.json").write_text(json.dumps(found))
    return CocoDetection(
        metainfo={"classes": classes},
        data_root=str(root),
        ann_file="a.json",
        data_prefix={"img": ""},
        filter_cfg={"filter_empty_gt": True, "min_size": 32},
        serialize_data=False,
        pipeline=[],
        **options,
    )


def put(field: str, value: Any, *places: int, part: str = "annotations") -> Change:
    return lambda found: [found[part][place].update({field: value}) for place in places]


EVERY = tuple(range(12))
FACES: dict[str, tuple[Change | None, str]] = {
    "all": (None, "4 of 4 images and 12 of 12 objects are used"),
    "ignored": (
        put("ignore", 1, 0, 4),
        "4 of 4 images and 10 of 12 objects are used; objects left out: 2 to be ignored",
    ),
    "crowds": (
        put("iscrowd", 1, 3),
        "4 of 4 images and 11 of 12 objects are used; objects left out: 1 crowds",
    ),
    "small image": (
        put("height", 24, 1, part="images"),
        "3 of 4 images and 9 of 12 objects are used; images left out: 1 smaller than 32 pixels (min_size); "
        "objects left out: 3 in images that are left out",
    ),
    "empty image": (
        lambda found: found["annotations"].__delitem__(slice(0, 3)),
        "3 of 4 images and 9 of 9 objects are used; images left out: 1 without an object",
    ),
    "outside": (
        put("bbox", [70, 4, 16, 16], 5),
        "11 of 12 objects are used; objects left out: 1 outside their image",
    ),
    "thin": (
        put("bbox", [9, 4, 0.5, 16], 5, 6),
        "10 of 12 objects are used; objects left out: 2 of area 0 or with",
    ),
    "several": (
        lambda found: (put("ignore", 1, 0)(found), put("iscrowd", 1, 3, 4)(found)),
        "9 of 12 objects are used; objects left out: 2 crowds ('iscrowd'), 1 to be ignored ('ignore')",
    ),
}
REFUSED: dict[str, Change] = {
    "more than half ignored": put("ignore", 1, *EVERY[:7]),
    "more than half of the images small": put("width", 31, 0, 1, 2, part="images"),
    "more than half of the images empty": lambda found: found["annotations"].__delitem__(slice(0, 9)),
}
NOTHING: dict[str, Change] = {
    "all ignored": put("ignore", 1, *EVERY),
    "all crowds": put("iscrowd", 1, *EVERY),
    "all images small": put("width", 31, 0, 1, 2, 3, part="images"),
    "all outside": put("bbox", [70, 4, 16, 16], *EVERY),
}


@pytest.mark.parametrize("face", FACES)
def test_the_line_counts_what_mmdet_has_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], face: str
) -> None:
    """Objects would be left out of training without a word, or counted as used."""
    change, line = FACES[face]
    dataset = built(tmp_path, change)
    check_objects(dataset, "train", trains=True)
    said = capsys.readouterr().out
    loaded = [dataset.get_data_info(index)["instances"] for index in range(len(dataset))]
    objects = sum(not instance["ignore_flag"] for instances in loaded for instance in instances)
    assert line in said and f"train: {len(dataset)} of 4 images and {objects} of " in said
    assert "left out by the data set" not in said


@pytest.mark.parametrize("face", REFUSED)
def test_less_than_half_is_an_error_unless_it_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], face: str
) -> None:
    """Hours of training would go into a small part of the data, or into none."""
    dataset = built(tmp_path, REFUSED[face])
    with pytest.raises(UserError, match=r"a\.json.* of 4 images and .* are used; .*\+allow_unused=True"):
        check_objects(dataset, "train", trains=True)
    check_objects(dataset, "train", trains=True, allow_unused=True)
    assert "objects are used; " in capsys.readouterr().out


@pytest.mark.parametrize("face", NOTHING)
def test_nothing_to_train_on_cannot_be_allowed(tmp_path: Path, face: str) -> None:
    """The override would be offered, and end in an error of numpy about nothing to concatenate."""
    dataset = built(tmp_path, NOTHING[face])
    for allow_unused in (False, True):
        with pytest.raises(UserError, match=r"a\.json.* 0 of 12 objects are used; .*") as error:
            check_objects(dataset, "train", trains=True, allow_unused=allow_unused)
        assert "allow_unused" not in str(error.value)


def test_a_score_counts_what_the_evaluators_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line of a test would leave out objects that the score counts: only crowds and other classes are."""
    marked = built(tmp_path, put("ignore", 1, *EVERY), test_mode=True)
    check_objects(marked, "test", trains=False)
    check_objects(built(tmp_path, put("iscrowd", 1, 0), test_mode=True), "test", trains=False)
    said = capsys.readouterr().out
    assert "test: 4 of 4 images and 12 of 12 objects are used\n" in said
    assert "note: test: 12 objects marked 'ignore' are scored" in said and said.count("are scored") == 1
    assert "test: 4 of 4 images and 11 of 12 objects are used; objects left out: 1 crowds" in said


def test_data_sets_inside_of_others_and_a_choice_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sets that are joined or repeated would be passed over."""
    dataset = built(tmp_path, classes=("a",))
    check_objects(ConcatDataset([dataset, dataset]), "train", trains=True)
    check_objects(RepeatDataset(dataset, times=3), "train", trains=True)
    said = capsys.readouterr().out
    assert "train: 4 of 4 images and 8 of 12 objects are used; objects left out: 4 of other classes" in said
    assert "train: 8 of 8 images and 16 of 24 objects are used; objects left out: 8 of other classes" in said
    with pytest.raises(UserError, match="4 of 12 objects are used; objects left out: 8 of other classes"):
        check_objects(built(tmp_path, classes=("b",)), "train", trains=True)


TWICE = "8 images are predicted for 4 ids, so that detections would count more than once"
NOT_ONCE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "indices": (
        lambda root: built(root, test_mode=True, indices=3),
        "1 of 4 images are not predicted and would",
    ),
    "a list of indices": (
        lambda root: built(root, test_mode=True, indices=[0, 2]),
        "2 of 4 images are not predicted",
    ),
    "filtered": (
        lambda root: built(root, put("height", 24, 1, part="images")),
        "1 of 4 images are not predicted",
    ),
    "repeated": (lambda root: RepeatDataset(built(root, test_mode=True), times=2), TWICE),
    "joined with itself": (lambda root: ConcatDataset([built(root, test_mode=True)] * 2), TWICE),
    "joined twice": (
        lambda root: ConcatDataset(
            [built(root, test_mode=True), built(root, put("file_name", "b.jpg", 1, part="images"))]
        ),
        TWICE,
    ),
}


@pytest.mark.parametrize("face", NOT_ONCE)
def test_every_image_of_a_test_is_predicted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], face: str
) -> None:
    """Images that are left out would count as images without a detection, and of two detections one as false."""
    make, message = NOT_ONCE[face]
    dataset = make(tmp_path)
    with pytest.raises(UserError, match=message):
        check_objects(dataset, "val", trains=False)
    if "not predicted" in message:
        assert "in images that are left out" in capsys.readouterr().out
    check_objects(dataset, "train", trains=True, allow_unused=True)


def test_classes_without_an_object_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A class would be trained for days on nothing and score 0."""
    faces = (
        None,
        lambda found: found.update(annotations=found["annotations"][:2]),
        put("ignore", 1, 2, 5, 8, 11),
    )
    for change, count in zip(faces, (0, 1, 1), strict=True):
        check_objects(built(tmp_path, change), "train", trains=True, allow_unused=True)
        assert capsys.readouterr().out.count("warning: train: no object of 1 of 2 classes: b\n") == count
    check_objects(built(tmp_path, faces[2], test_mode=True), "val", trains=False)
    assert "no object of" not in capsys.readouterr().out
