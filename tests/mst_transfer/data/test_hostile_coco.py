"""COCO files and class lists that were made to end a program, or to steer a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.layouts import recognise
from mst_toolkit.layouts.class_files import read_class_list
from mst_transfer.data.coco_file import read_with_notes
from mst_transfer.data.coco_rules import check_coco


def data_set(root: Path, **changes: Any) -> Path:
    """One picture with one object; the path of its JSON."""
    root.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "red").save(root / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "cat"}],
        **changes,
    }
    (root / "a.json").write_text(json.dumps(content))
    return root / "a.json"


@pytest.mark.parametrize("depth", [101, 5000, 30_000])
def test_absurd_depth_is_one_message(depth: int, tmp_path: Path) -> None:
    """Reading, or quoting a value in a message, would end in a RecursionError."""
    deep: str = "[" * depth + "]" * depth
    path = data_set(tmp_path / "set")
    path.write_text(path.read_text().replace('"cat"', deep))
    with pytest.raises(
        UserError, match=r"a\.json cannot be read as JSON \(it is nested more than 100 levels deep"
    ):
        read_with_notes(path)
    with pytest.raises(UserError):
        recognise(tmp_path / "set", "detection")


def test_class_lists_of_absurd_depth_are_refused(tmp_path: Path) -> None:
    """A classes.json would end in a RecursionError."""
    (tmp_path / "classes.json").write_text("[" * 30_000 + "]" * 30_000)
    with pytest.raises(UserError, match=r"cannot be read as a list of classes \(it is nested .*\n.*\[D15\]"):
        read_class_list(tmp_path / "classes.json")


def test_class_names_that_steer_a_terminal_are_refused(tmp_path: Path) -> None:
    """Every table of scores would be obeyed by the terminal that shows it."""
    path = data_set(tmp_path / "set", categories=[{"id": 1, "name": "cat\x1b[2J"}])
    with pytest.raises(UserError, match=r"names of 'categories' hold control characters: 'cat\\x1b\[2J'"):
        check_coco(path.parent, path.name, ".", None)
    (tmp_path / "classes.txt").write_text("cat\ndog\x1b[2J\n")
    with pytest.raises(UserError, match=r"has control characters in names: 'dog\\x1b\[2J'"):
        read_class_list(tmp_path / "classes.txt")


def test_pictures_named_outside_their_folder_are_only_read(tmp_path: Path) -> None:
    """A device or an endless file that a JSON names would be read without end."""
    path = data_set(tmp_path / "set", images=[{"id": 1, "file_name": "/dev/zero", "width": 64, "height": 64}])
    with pytest.raises(UserError, match=r"/dev/zero.*is not there"):
        check_coco(path.parent, path.name, ".", None)


def test_a_picture_beyond_pillows_limit_is_refused(tmp_path: Path) -> None:
    """Half a megabyte would become gigabytes in a worker."""
    path = data_set(
        tmp_path / "set", images=[{"id": 1, "file_name": "b.png", "width": 20_000, "height": 20_000}]
    )
    Image.new("1", (20_000, 20_000)).save(tmp_path / "set/b.png")
    assert (tmp_path / "set/b.png").stat().st_size < 1 << 20
    with pytest.raises(
        UserError, match=r"b\.png.*20000x20000 pixels, and Pillow decodes at most 178,956,970"
    ):
        check_coco(path.parent, path.name, ".", None)
