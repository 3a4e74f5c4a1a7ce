"""Codes in messages and the pages that explain them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_code_is_explained_and_used() -> None:
    """Somebody would look for a code that no page has, or read of an error that no longer comes."""
    packages = ("mst_toolkit", "mst_pretrain", "mst_transfer")
    source = "\n".join(path.read_text() for name in packages for path in (ROOT / name).rglob("*.py"))
    used = set(re.findall(r"\[([SPR]\d\d)\]", source))
    explained = set(re.findall(r"^## ([SPR]\d\d): ", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    assert used == explained and used


def test_every_code_of_data_has_its_row() -> None:
    """A code about data would stand in a message and not in the table that errors.md points to, or the other way."""
    packages = ("mst_toolkit", "mst_pretrain", "mst_transfer")
    source = "\n".join(path.read_text() for name in packages for path in (ROOT / name).rglob("*.py"))
    used = set(re.findall(r"\b(D\d\d)\b", source))
    page = (ROOT / "docs/data_layouts.md").read_text()
    explained = set(re.findall(r"^\| (D\d\d) \|", page, re.MULTILINE))
    assert used == explained and len(used) > 10
    assert "data_layouts.md" in (ROOT / "docs/errors.md").read_text()


def test_no_page_speaks_of_a_code_that_is_not_there() -> None:
    """A guide would send its reader to a code that no message has."""
    packages = ("mst_toolkit", "mst_pretrain", "mst_transfer")
    source = "\n".join(path.read_text() for name in packages for path in (ROOT / name).rglob("*.py"))
    there = set(re.findall(r"\b([SPRD]\d\d)\b", source))
    for page in (ROOT / "docs").rglob("*.md"):
        named = set(re.findall(r"(?<![\w.-])([SPRD]\d\d)(?![\w.-])", page.read_text()))
        assert named <= there, f"{page.relative_to(ROOT)}: {sorted(named - there)}"
