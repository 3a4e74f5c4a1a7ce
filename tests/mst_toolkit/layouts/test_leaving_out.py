"""``--skip-broken`` leaves out what cannot be read, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.layouts import check, recognise, whole_photos, without_broken

from . import drawn_data as drawn


def cut(path: Path) -> Path:
    """The file without its end."""
    path.write_bytes(path.read_bytes()[:-40])
    return path


def cityscapes(root: Path) -> Path:
    """Three training and two validation images of two classes."""
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            drawn.picture(root / f"leftImg8bit/{split}/a/a_{number}_leftImg8bit.png", number)
            drawn.mask(root / f"gtFine/{split}/a/a_{number}_gtFine_labelTrainIds.png", [0, 1])
    return root


@pytest.mark.parametrize(
    ("make", "file", "before", "after", "gone"),
    [
        (drawn.roboflow, "train/train_1.jpg", (6, 3), (5, 3), "train_1.jpg"),
        (drawn.roboflow, "valid/valid_0.jpg", (6, 3), (6, 2), "valid_0.jpg"),
        (lambda root: drawn.masks(root, [0, 1]), "masks/val/2.png", (5, 5), (5, 4), "2.jpg"),
        (lambda root: drawn.masks(root, [0, 1]), "images/train/3.jpg", (5, 5), (4, 5), "3.jpg"),
        (
            cityscapes,
            "leftImg8bit/train/a/a_1_leftImg8bit.png",
            (3, 2),
            (2, 2),
            "a/a_1_leftImg8bit.png",
        ),
    ],
)
def test_only_the_broken_image_goes(
    tmp_path: Path,
    make: Callable[[Path], Path],
    file: str,
    before: tuple[int, int],
    after: tuple[int, int],
    gone: str,
) -> None:
    """A training would still stop at the broken file, or lose images that are whole."""
    root = make(tmp_path)
    found = recognise(root)
    assert without_broken(found) == (found, [])
    broken = cut(root / file)
    (fault,) = [fault for fault in check(recognise(root)) if not fault.warning]
    assert "--skip-broken" in str(fault)
    left, faults = without_broken(recognise(root))
    assert left.val is not None
    assert ((found.train.count, getattr(found.val, "count", 0)), (left.train.count, left.val.count)) == (
        before,
        after,
    )
    assert [one.path for one in faults] == [broken] and "truncated" in faults[0].what
    changed = [part for part in left.parts if part.names is not None]
    assert [len(part.names or ()) for part in changed] == [part.count for part in changed]
    assert all(gone not in (part.names or ()) for part in changed) and len(changed) == 1
    assert (
        "1 files that cannot be read are left out" in left.warnings[-1] and str(broken) in left.warnings[-1]
    )


def test_objects_are_counted_without_the_broken_images(tmp_path: Path) -> None:
    """The plan would tell of labels that no step sees."""
    root = drawn.roboflow(tmp_path)
    cut(root / "train/train_1.jpg")
    left, _ = without_broken(recognise(root))
    assert (sum(recognise(root).objects.values()), sum(left.objects.values())) == (12, 10)


def test_a_part_without_a_whole_image_is_an_error(tmp_path: Path) -> None:
    """A training without one image would begin."""
    root = drawn.masks(tmp_path, [0, 1])
    for path in (root / "images/val").iterdir():
        cut(path)
    with pytest.raises(UserError, match=r"images/val: none of the 5 files can be read.*truncated JPEG"):
        without_broken(recognise(root))


def test_photos_of_folders_and_lists(tmp_path: Path) -> None:
    """A list is read from its own folder: names that stay relative would point nowhere from the run's folder."""
    for number in range(4):
        drawn.picture(tmp_path / f"photos/deep/{number}.jpg", number)
    broken = cut(tmp_path / "photos/deep/2.jpg")
    (tmp_path / "photos/deep/3.jpg").write_bytes(b"")
    (tmp_path / "list.txt").write_text("photos/deep/0.jpg\nphotos/deep/2.jpg\n")
    whole, faults = whole_photos(str(tmp_path / "photos"))
    assert whole == [str(tmp_path / f"photos/deep/{number}.jpg") for number in (0, 1)]
    assert [(fault.path.name, fault.what[:9]) for fault in faults] == [
        ("2.jpg", "truncated"),
        ("3.jpg", "empty fil"),
    ]
    whole, (fault,) = whole_photos(str(tmp_path / "list.txt"))
    assert whole == [str(tmp_path / "photos/deep/0.jpg")] and fault.path == broken
    assert Image.open(whole[0]).size == (drawn.WIDTH, drawn.HEIGHT)


def test_shards_are_refused(tmp_path: Path) -> None:
    """The option would be ignored without a word."""
    drawn.picture(tmp_path / "in/0.jpg")
    shutil.make_archive(str(tmp_path / "shards/000"), "tar", tmp_path / "in")
    with pytest.raises(UserError, match="lie in shards"):
        whole_photos(str(tmp_path / "shards"))
