"""Images that a tag turns: every reader's truth, and what is said where labels may be of the pixels as stored."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv import imfrombytes
from PIL import Image

from mst_transfer.data.image_rules import (
    dark_problems,
    image_header,
    remedy_of_tag,
    shared_images,
    size_said,
    tag_problems,
)
from mst_transfer.data.problems import WARNINGS, Problem, stop_at_first

HEIGHT, WIDTH = 20, 30


def tagged(path: Path, tag: int) -> Path:
    """A picture that is bright in its upper left corner as it is stored."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("tag", [1, 2, 3, 6, 8, 0, 9])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_header_and_opencv_agree(tmp_path: Path, suffix: str, tag: int) -> None:
    """Sizes would be compared with those of other pixels than training loads, or be said to be turned and are not."""
    path = tagged(tmp_path / f"a{suffix}", tag)
    width, height, found, turned, _ = image_header(path)
    loaded = imfrombytes(path.read_bytes())
    assert loaded.shape[:2] == (height, width)
    assert found == (tag if 2 <= tag <= 8 else 1)
    assert (loaded[4, 4].mean() < 128) == (found != 1 and bool(turned))


@pytest.mark.parametrize(
    ("facts", "said", "remedy"),
    [
        ([20, 30, 6, 1, 0], "30x20, stored as 20x30 and turned by its EXIF tag", "exiftool -Orientation="),
        ([20, 30, 8, 0, 0], "30x20, as OpenCV does not follow its EXIF tag", "upright and without the tag"),
        ([20, 30, 3, 1, 0], "30x20", ""),
        ([20, 30, 1, 1, 0], "30x20", ""),
        ([20, 31, 6, 1, 0], "31x20, stored as 20x31 and turned by its EXIF tag", ""),
    ],
)
def test_exchanged_sides_are_put_down_to_the_tag(facts: list[int], said: str, remedy: str) -> None:
    """A user would resize a label map of which nothing is wrong, or correct a JSON that is right."""
    assert size_said(facts) == said
    found = remedy_of_tag(facts, [30, 20], "label maps")
    assert remedy in found and bool(remedy) == bool(found)


def test_a_tag_is_a_warning_with_count_and_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks of the pixels as stored would be trained upside down without a word."""
    tags = {"a.jpg": 1, "b.jpg": 3, "c.jpg": 2, "d.webp": 3}
    facts = {tagged(tmp_path / name, tag): image_header(tmp_path / name) for name, tag in tags.items()}
    problems = list(tag_problems([*facts, tmp_path / "unread.jpg"], facts, "label maps"))
    assert all(problem.kind in WARNINGS for problem in problems)
    stop_at_first([*problems, Problem("turned", tmp_path, "behind")])
    first, second, _ = capsys.readouterr().out.splitlines()
    said = "2 of 5 images are turned or mirrored by their EXIF tag, first b.jpg: label maps are taken as of the upright"
    assert first.startswith(f"warning: {tmp_path}: {said} pictures. If")
    assert "1 of 5 images have an EXIF tag that OpenCV does not follow in WebP, first d.webp" in second


@pytest.mark.parametrize("how", ["one path", "link", "link to the folder", "copy"])
def test_images_of_both_splits_are_named(tmp_path: Path, how: str) -> None:
    """A network that has seen its validation images gets a score that means nothing."""
    train, val = tmp_path / "train", tmp_path / "val"
    train.mkdir()
    files = [tagged(train / f"{index}.png", 1) for index in range(3)]
    files[1].write_bytes(files[1].read_bytes() + b"another end")
    if how == "link to the folder":
        val.symlink_to(train)
    else:
        val.mkdir()
    for path in files:
        if how == "link":
            (val / path.name).symlink_to(path)
        elif how == "copy":
            shutil.copy(path, val)
    others = [path if how == "one path" else val / path.name for path in files[:2]]
    (problem,) = shared_images(files, [*others, tmp_path / "elsewhere/9.png"])
    assert problem.kind in WARNINGS and problem.path == others[0].parent
    assert problem.what == "2 of 3 images of val are also in train, first 0.png"


def test_images_of_one_name_need_not_be_one_image(tmp_path: Path) -> None:
    """Cameras number their pictures: 0001.jpg of two days would be a warning that nobody believes."""
    train, val = tmp_path / "train", tmp_path / "val"
    for folder, colors in ((train, (0, 1, 2)), (val, (50, 51, 2))):
        folder.mkdir()
        for index, color in enumerate(colors):
            Image.new("L", (40, 30), color).save(folder / f"{index}.bmp")
    paths = [[folder / f"{index}.bmp" for index in (0, 1)] for folder in (train, val)]
    assert paths[0][0].stat().st_size == paths[1][0].stat().st_size
    assert list(shared_images(*paths)) == []
    (problem,) = shared_images(*([*some, some[0].with_name("2.bmp")] for some in paths))
    assert problem.what.startswith("1 of 3 images")


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)], ids=["gray", "color"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("largest", [4095, 8191, 8192, 65535])
def test_sixteen_bits_that_are_used_in_part_are_said(
    tmp_path: Path, largest: int, suffix: str, shape: tuple[int, ...]
) -> None:
    """A microscope's 12 bits would be loaded as black, and a network trained on nothing."""
    paths = [tmp_path / f"{index}{suffix}" for index in range(40)]
    for path in paths[:-1]:
        cv2.imwrite(str(path), np.linspace(0, largest, math.prod(shape)).astype(np.uint16).reshape(shape))
    cv2.imwrite(str(paths[-1]), np.full(shape, 3, np.uint8))
    problems = list(dark_problems(paths, {path: image_header(path) for path in paths}))
    if largest > 8191:
        assert problems == []
    else:
        (problem,) = problems
        assert problem.kind in WARNINGS
        said = f"39 of 40 images have 16 bits, first 0{suffix}: their values reach {largest} of 65535"
        assert problem.what.startswith(said)
        assert (
            f"(13 looked at), and training takes the upper 8 bits, at most {largest >> 8} of 255"
            in problem.what
        )
        assert abs(int(imfrombytes(paths[0].read_bytes()).max()) - largest / 256) <= 1
