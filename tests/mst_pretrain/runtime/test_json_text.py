"""JSON of anybody: depth, encodings, and names with brackets in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.json_text import DEEPEST, parse_json, read_json


@pytest.mark.parametrize("pair", ["[]", "{}"])
@pytest.mark.parametrize("depth", [DEEPEST + 1, 100_000])
def test_absurd_depth_is_refused(pair: str, depth: int) -> None:
    """A file of some kilobytes would end every command that reads it in a RecursionError."""
    opening = pair[0] if pair == "[]" else '{"a":'
    text = opening * depth + (pair if pair == "[]" else "1") + pair[1] * depth
    for form in (text, text.encode(), text.encode("utf-16")):
        with pytest.raises(ValueError, match=f"nested more than {DEEPEST} levels"):
            parse_json(form)


def test_ordinary_files_are_read() -> None:
    """A COCO file with brackets in its names, or one in UTF-16, would be refused."""
    name = "[[{" * 500 + '\\" ]'
    content = {"images": [{"file_name": name}] * 3, "deep": json.loads("[" * 98 + "]" * 98)}
    text = json.dumps(content)
    assert parse_json(text) == parse_json(text.encode("utf-16")) == parse_json(text.encode()) == content


@pytest.mark.parametrize("text", ["", "{", "[[[[", "]]]]", "\x00"])
def test_other_text_is_a_value_error(text: str) -> None:
    """A cut file would end in another error than the one that callers explain."""
    with pytest.raises(ValueError):
        parse_json(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A damaged plan.json would end in a traceback."""
    (tmp_path / "plan.json").write_text("{")
    for name in ("plan.json", "gone.json"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as JSON .*Copy it again"):
            read_json(tmp_path / name)
