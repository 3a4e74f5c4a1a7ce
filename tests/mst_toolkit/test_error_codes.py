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
