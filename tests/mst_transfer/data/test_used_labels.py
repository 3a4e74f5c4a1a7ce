"""Label maps as people have them: loaded rightly, or refused with the reason; what is used is said in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.datasets import FolderSegmentation
from mst_transfer.data.layouts import unused_maps
from mst_transfer.data.pair_rules import OBJECT_255, Meaning, absent_maps, need_one_meaning
from mst_transfer.data.prepare import prepare
from mst_transfer.data.used_labels import check_labels
from mst_transfer.evaluation.settings import classes_of
from tests.promises.label_map_edits import few_bits

HEIGHT, WIDTH = 24, 32
NAMES = ("ground", "box", "disc")


def pattern(*values: int) -> np.ndarray:
    """int64 [24, 32] of these values in turn, as many pixels of each as there is room for."""
    return np.resize(np.array(values), (HEIGHT, WIDTH))


def palette(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels.astype(np.uint8))
    image = image.convert("P")
    image.putdata(pixels.ravel().tolist())
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    return image


def gray(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def bits16(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint16))


def write_pair(root: Path, split: str, maps: list[Image.Image], kind: str = "PNG") -> None:
    """Noise of each map's size, and the maps."""
    rng = np.random.default_rng(0)
    for index, label in enumerate(maps):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (label.height, label.width, 3), np.uint8)
        Image.fromarray(noise).save(root / f"images/{split}/{index}.jpg")
        label.save(root / f"labels/{split}/{index}.png", kind)


def data_set(root: Path, split: str, names: tuple[str, ...], **options: Any) -> FolderSegmentation:
    prefix = {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"}
    return FolderSegmentation(data_root=str(root), data_prefix=prefix, metainfo={"classes": names}, **options)


ACCEPTED: dict[str, tuple[Callable[[np.ndarray], Image.Image], tuple[int, ...], tuple[int, ...], int]] = {
    # how the map is written, its values, the labels that training must see, number of classes
    "gray": (gray, (0, 1, 2, 255), (0, 1, 2, 255), 3),
    "palette": (palette, (0, 1, 2), (0, 1, 2), 3),
    "one bit": (lambda pixels: Image.fromarray(pixels > 0), (0, 1), (0, 1), 2),
    "16 bits": (bits16, (0, 2, 1, 255), (0, 2, 1, 255), 3),
    "0 and 255": (gray, (0, 255, 0), (0, 1, 0), 2),
    "0 and 255, 16 bits": (bits16, (255, 0), (1, 0), 2),
    "0, 1 and 255": (gray, (0, 1, 255), (0, 1, 255), 2),
    "a class that is absent": (gray, (0, 2), (0, 2), 3),
}
REFUSED: dict[str, tuple[Image.Image, int, str]] = {
    "16 bits beyond 255": (
        bits16(pattern(0, 1, 300)),
        2,
        r"256 pixels of the unknown id 300 \(all: \[300\]\)",
    ),
    "65534": (bits16(pattern(0, 1, 65534)), 2, "unknown id 65534 .*; ids are 0..1 and 255"),
    "128 for the object": (gray(pattern(0, 128)), 2, "384 pixels of the unknown id 128"),
    "edges from smoothing": (gray(pattern(0, 127, 254, 255)), 2, "unknown id 127"),
    "ids from 1": (gray(pattern(1, 2, 3)), 3, "unknown id 3"),
    "0 and 255 of three classes": (gray(pattern(0, 255)), 3, "one class, ground .*384 pixels are 255"),
    "255 alone": (gray(pattern(255)), 2, "no label map has a pixel of a class"),
    "0 alone": (gray(pattern(0)), 2, "one class, ground"),
    "1 alone": (gray(pattern(1)), 2, "one class, box"),
    "gray as color": (gray(pattern(0, 1)).convert("RGB"), 2, "mode RGB; one channel"),
    "gray with alpha": (gray(pattern(0, 1)).convert("LA"), 2, "mode LA; one channel"),
    "palette and alpha": (gray(pattern(0, 1)).convert("RGBA"), 2, "mode RGBA; one channel"),
    "one pixel high": (gray(pattern(0, 1)[:1]), 2, "32x1 pixels: one pixel thin"),
    "one pixel wide": (gray(pattern(0, 1)[:, :1]), 2, "1x24 pixels: one pixel thin"),
}


@pytest.mark.parametrize("face", ACCEPTED)
def test_accepted_maps_are_loaded_as_they_are_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], face: str
) -> None:
    """The check would pass a map of which the loss sees other labels than the annotator wrote."""
    write, values, labels, classes = ACCEPTED[face]
    for split in ("train", "val"):
        write_pair(tmp_path, split, [write(pattern(*values))])
    dataset = data_set(tmp_path, "train", NAMES[:classes], pipeline=[])
    loaded = LoadAnnotations()(dataset.get_data_info(0))["gt_seg_map"]
    assert (loaded == pattern(*labels)).all()
    check_labels(dataset, "train", trains=True)
    said = capsys.readouterr().out
    assert "train: 1 of 1 images used; pixels: " in said
    for label, name in enumerate(NAMES[:classes]):
        assert f"{name} {(loaded == label).mean():.2%}" in said
        assert (f"have no pixel: {name}" in said) == (label not in labels)
    assert ("ignored" in said) == (255 in labels) and ("255 is box" in said) == (face.startswith("0 and 255"))
    findings, _ = prepare("pair", tmp_path, classes=classes)
    assert findings.problems == []
    assert any("255 is id 1" in note for note in findings.notes) == face.startswith("0 and 255")


@pytest.mark.parametrize("face", REFUSED)
def test_other_maps_are_refused_by_training_and_preparation(tmp_path: Path, face: str) -> None:
    """A training would run for hours on labels that no class has, on one class, or stop in its loader."""
    label, classes, message = REFUSED[face]
    for split in ("train", "val"):
        write_pair(tmp_path, split, [label])
    with pytest.raises(UserError, match=message):
        check_labels(data_set(tmp_path, "train", NAMES[:classes], pipeline=[]), "train", trains=True)
    findings, _ = prepare("pair", tmp_path, classes=classes)
    assert findings.problems and all(problem.remedy for problem in findings.problems)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_picture_beyond_pillows_limit_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, part: str
) -> None:
    """The advice would be to copy a sound file again, or the tool would end in a traceback."""
    for split in ("train", "val"):
        write_pair(tmp_path, split, [gray(pattern(0, 1))])
    path = tmp_path / part / "train" / ("0.jpg" if part == "images" else "0.png")
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(path, kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1700)  # an error from twice as many on
    with pytest.raises(
        UserError, match=rf"{path.name}.*(3600 pixels|60x60 pixels).*cut it up or make it smaller"
    ):
        check_labels(data_set(tmp_path, "train", NAMES[:2], pipeline=[]), "train", trains=True)
    findings, _ = prepare("pair", tmp_path, classes=2)
    assert {problem.kind for problem in findings.problems} == {"unsuitable file"}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("crack", "is the text 'crack'.*classes = \\('crack',\\)"),
        ("classes.txt", "is the text"),
        ((), "is \\(\\)"),
        ([], "is \\[\\]"),
        ({"crack": 0}, "Write a list of names"),
        (3, "is 3"),
        (("car", "bus", "car"), "has 'car' twice"),
        (("crack",), None),
        (["car", "bus"], None),
    ],
)
@pytest.mark.parametrize("kind", ["CocoDataset", "FolderSegmentation"])
def test_class_names_are_a_list(classes: Any, message: str | None, kind: str) -> None:
    """The letters of a text would be the classes, or COCO's 80 stand for an empty list."""
    dataset = {"type": kind, "metainfo": {"classes": classes}}
    scope = {"CocoDataset": "mmdet"}.get(kind, "mmseg")
    for wrapped in (dataset, {"type": "RepeatDataset", "times": 2, "dataset": dataset}):
        cfg = Config({"default_scope": scope, "test_dataloader": {"dataset": wrapped}})
        if message is None:
            assert classes_of(cfg) == tuple(classes)
        else:
            with pytest.raises(UserError, match=message):
                classes_of(cfg)


def test_images_left_out_by_the_config_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run would use a part of its images, and a data set around another one would not be looked at."""
    write_pair(tmp_path, "train", [gray(pattern(0, 1))] * 3)
    part = data_set(tmp_path, "train", NAMES[:2], pipeline=[], indices=2)
    repeated = RepeatDataset(part, 5)
    joined = ConcatDataset([part, data_set(tmp_path, "train", NAMES[:2], pipeline=[], indices=[1])])
    for dataset in (part, repeated, joined):
        check_labels(dataset, "train", trains=True)
        assert "train: 2 of 3 images used" in capsys.readouterr().out
    bits16(pattern(0, 700)).save(tmp_path / "labels/train/1.png")
    with pytest.raises(UserError, match=r"labels/train/1.png: has 384 pixels of the unknown id 700"):
        check_labels(joined, "train", trains=True)


@pytest.mark.parametrize("key", ["ann_file", "img_suffix", "seg_map_suffix"])
def test_settings_that_the_folder_data_set_does_not_read_are_refused(tmp_path: Path, key: str) -> None:
    """A list of images, or another suffix, would change nothing."""
    write_pair(tmp_path, "train", [gray(pattern(0, 1))])
    with pytest.raises(UserError, match=f"does not read {key}"):
        data_set(tmp_path, "train", NAMES[:2], **{key: ".x"})


def test_255_has_one_meaning_in_all_splits() -> None:
    """Pixels that one split ignores would be scored as the object in another."""
    for first, second, refused in (
        ((True, True), (True, True), False),
        ((True, True), (False, False), False),  # an object of 1 beside an object of 255
        ((True, True), (True, False), True),
        ((True, False), (True, True), True),
        ((True, False), (True, False), False),
    ):
        one, other = Meaning("labels/train", *first), Meaning("labels/val", *second)
        if refused:
            with pytest.raises(UserError, match=r"255 is the object here.*ignored in .*as 1"):
                need_one_meaning(one, other)
        else:
            need_one_meaning(one, other)


def test_a_stray_1_beside_an_object_of_255_is_no_silent_label(tmp_path: Path) -> None:
    """Beyond the sample that decides on the meaning of 255, maps that hold 1 as well would train wrongly."""
    write_pair(tmp_path, "train", [gray(pattern(0, 255))])
    dataset = data_set(tmp_path, "train", NAMES[:2], pipeline=[])
    assert dataset.metainfo["label_map"] == OBJECT_255  # what the checkpoint remembers
    gray(pattern(0, 1, 255)).save(tmp_path / "labels/train/0.png")
    with pytest.raises(UserError, match="unknown id 1 "):
        check_labels(dataset, "train", trains=True)


def test_label_maps_without_an_image_are_counted_by_reason(tmp_path: Path) -> None:
    """Images of a format that is not read would be missing from a training without a word."""
    write_pair(tmp_path, "train", [gray(pattern(0, 1))] * 6)
    images, labels = tmp_path / "images/train", tmp_path / "labels/train"
    used = [labels / "0.png", labels / "1.png"]
    assert unused_maps(images, labels, [labels / f"{index}.png" for index in range(6)]) == ""
    for index, suffix in ((2, ".raw"), (3, ".raw"), (4, "")):
        image = images / f"{index}.jpg"
        image.rename(image.with_suffix(suffix)) if suffix else image.unlink()
    gray(pattern(0, 1)).save(labels / "7.bmp")
    said = unused_maps(images, labels, used)
    assert said.startswith("5 label maps are not used (")
    assert "2 of images with the suffix .raw, which is not read" in said
    assert "1 without an image of that name" in said and "1 whose image is left out by the config" in said
    assert "1 with the suffix .bmp, but label maps are .png, .tif, .tiff or .webp" in said
    (labels / "0.png").rename(labels / "0.gif")
    with pytest.raises(UserError, match=r"0.png: does not exist.*\(there is 0.gif\)"):
        check_labels(data_set(tmp_path, "train", NAMES[:2], pipeline=[]), "train", trains=True)


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of some thousands of files would list their folder as many times, and take minutes."""
    write_pair(tmp_path, "train", [gray(pattern(0, 1))])
    images, labels = tmp_path / "images/train", tmp_path / "labels/train"
    for index in range(40):
        (labels / f"{index}_color.png").touch()
        (labels / f"{index}_x.bmp").touch()
    listed: list[str] = []
    for name in ("listdir", "scandir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path=".", real=real: (listed.append(str(path)), real(path))[1])
    assert "81 label maps" in unused_maps(images, labels, [])
    maps = [labels / f"{index}_x.png" for index in range(40)]
    problems = list(absent_maps(([images / f"{index}_x.jpg" for index in range(40)], maps)))
    assert len(problems) == 40 and problems[7].what.endswith("(there is 7_x.bmp)")
    assert len(listed) <= 4  # two walks of both folders


def test_65535_is_255(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Maps of 16 bits whose ignored pixels are all ones would be refused, although training ignores these."""
    for values, labels, classes in (
        ((0, 1, 2, 65535), (0, 1, 2, 255), 3),
        ((0, 1, 65535, 255), (0, 1, 255, 255), 2),
        ((0, 65535), (0, 1), 2),  # the object
    ):
        for split in ("train", "val"):
            write_pair(tmp_path, split, [bits16(pattern(*values))])
        dataset = data_set(tmp_path, "train", NAMES[:classes], pipeline=[])
        loaded = LoadAnnotations()(dataset.get_data_info(0))["gt_seg_map"]
        assert (loaded == pattern(*labels)).all()
        meaning, _ = check_labels(dataset, "train", trains=True)
        said = capsys.readouterr().out
        assert "warning" in said and "1 of 1 label maps hold 65535, first 0.png: read as 255" in said
        assert meaning.occurs and ("ignored" in said.rpartition("pixels:")[2]) == (255 in labels)
        findings, _ = prepare("pair", tmp_path, any_count=True, classes=classes)
        assert (
            findings.problems == [] and [warning.kind for warning in findings.warnings][:2] == ["65535"] * 2
        )
    with pytest.raises(UserError, match="all labelled pixels are of one class"):
        write_pair(tmp_path, "train", [bits16(pattern(0, 65535))])
        check_labels(data_set(tmp_path, "train", NAMES, pipeline=[]), "train", trains=True)


def test_pictures_that_are_not_read_count_as_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of HEIC with a few JPEG between them would train on these as if they were all."""
    write_pair(tmp_path, "train", [gray(pattern(0, 1))] * 5)
    for index in range(2):
        image = tmp_path / f"images/train/{index}.jpg"
        image.rename(image.with_suffix(".HEIC"))
    check_labels(data_set(tmp_path, "train", NAMES[:2], pipeline=[]), "train", trains=True)
    assert "train: 3 of 5 images used" in capsys.readouterr().out
    image = tmp_path / "images/train/2.jpg"
    image.rename(image.with_suffix(".dng"))
    dataset = data_set(tmp_path, "train", NAMES[:2], pipeline=[])
    with pytest.raises(UserError, match=r"images/train.*2 of 5 images used.*\+allow_unused=True"):
        check_labels(dataset, "train", trains=True)
    check_labels(dataset, "train", trains=True, allow_unused=True)


def test_both_tools_count_the_files_left_out_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """prepare_data would pass over files of which a training speaks, or those beside the label maps go unsaid."""
    for split in ("train", "val"):
        write_pair(tmp_path, split, [gray(pattern(0, 1))])
    for name in (".DS_Store", "Thumbs.db", "._0.jpg"):
        for part in ("images", "labels"):
            (tmp_path / part / "train" / name).write_bytes(b"\0\5\26\7")
    (tmp_path / "labels/train/.cache").mkdir()
    gray(pattern(0, 1)).save(tmp_path / "labels/train/spare.png")
    spare = f"({tmp_path / 'labels/train/spare.png'}): 1 without an image of that name"
    notes = [
        f"train: 1 label maps are not used {spare}",
        "train: 6 files left out: 4 (hidden), 2 .db (not images)",
    ]
    check_labels(data_set(tmp_path, "train", NAMES[:2], pipeline=[]), "train", trains=True)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "note" in line] == [f"note: {note}" for note in notes]
    findings, _ = prepare("pair", tmp_path, any_count=True, classes=2)
    assert findings.notes == notes


@pytest.mark.parametrize(("bits", "ids"), [(2, "0, 85, 170"), (4, "0, 17, 34")])
def test_gray_of_few_bits_is_named_and_nothing_else(tmp_path: Path, bits: int, ids: str) -> None:
    """Ids that nobody wrote would be called unknown, or lie among the classes of a long list by chance."""
    for split in ("train", "val"):
        write_pair(tmp_path, split, [gray(pattern(0, 1, 2))])
        path = tmp_path / f"labels/{split}/0.png"
        few_bits(bits)(Image.open(path).copy(), path)
    findings, _ = prepare("pair", tmp_path, any_count=True, classes=200)
    assert [problem.kind for problem in findings.problems] == ["label map format"] * 2
    assert findings.problems[0].what == f"is a {bits}-bit PNG, whose ids 0, 1, 2 are read as {ids}"
