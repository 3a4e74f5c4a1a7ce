"""File names that are spelled in another way than the file: found where one file can be meant, else left."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mst_transfer.data.coco_names import names_on_disk

DECOMPOSED = unicodedata.normalize("NFD", "é.jpg")


@pytest.mark.parametrize(
    ("on_disk", "names", "found"),
    [
        (["a.jpg"], ["a.jpg"], {}),
        (["a.jpg"], ["A.JPG"], {"A.JPG": "a.jpg"}),
        (["north/a.jpg"], ["north\\a.jpg"], {"north\\a.jpg": "north/a.jpg"}),
        (["north/a.jpg"], ["north\\A.jpg"], {"north\\A.jpg": "north/a.jpg"}),
        (["é.jpg"], [DECOMPOSED], {DECOMPOSED: "é.jpg"}),
        ([DECOMPOSED], ["é.jpg"], {"é.jpg": DECOMPOSED}),
        (["north\\a.jpg"], ["north\\a.jpg"], {}),  # such a name is possible on Linux
        (["a.jpg", "A.jpg"], ["A.JPG"], {}),  # which of the two is open
        (["a.jpg"], ["a.jpg", "A.JPG"], {}),  # two images cannot be one file
        (["a.jpg"], ["A.jpg", "A.JPG"], {}),
        (["a.jpg"], ["b.jpg", "/elsewhere/a.jpg", "a", ""], {}),
    ],
)
def test_names_of_one_file(
    tmp_path: Path, on_disk: list[str], names: list[str], found: dict[str, str]
) -> None:
    """Another picture than the labelled one would be trained, or a file be called absent that is there."""
    for name in on_disk:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert names_on_disk(tmp_path, names) == found


def test_a_folder_that_is_not_there_has_no_names(tmp_path: Path) -> None:
    """The message about the folder would give way to a traceback."""
    assert names_on_disk(tmp_path / "absent", ["a.jpg"]) == {}
