"""What the site's programs write is of the code and of the English pages as they are now."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def program(name: str) -> ModuleType:
    """``docs/programs/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/programs/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_the_command_line_is_of_these_signatures() -> None:
    """The page would name options that are gone, and lack the new ones."""
    made = program("command_line")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "type: python docs/programs/command_line.py"


def test_the_reference_has_every_argument() -> None:
    """An option could be on no page while the page is said to be complete."""
    made = program("command_line")

    def call(data: str, *, out: str | None = None, quick: bool = False, starts: Any = ()) -> None:
        """Do a thing | well.

        Args:
            data: What to read.
            out: Where to write (default: 90 %).
            quick: At once.
            starts: From where.
        """

    text = made.described(call)
    assert text.startswith("## mst call\n\nDo a thing | well.\n")
    assert "| `DATA` |  | What to read. |" in text and "| `--quick` |  | At once. |" in text
    assert "| `--out`, `--work-dir` | `OUT` | Where to write (default: 90 %). |" in text


def test_no_translation_is_behind_unmarked() -> None:
    """A reader of the Chinese page would follow commands that the English page no longer has."""
    translations = program("translations")
    behind = [page.name for page in translations.pages() if translations.is_behind(page)]
    marked = [page.name for page in translations.pages() if translations.is_admitted(page)]
    assert set(behind) <= set(marked), (
        "bring these up to date, then: python docs/programs/translations.py --done FILE; or --later FILE"
    )


def test_a_changed_english_page_marks_its_translation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digest could be of something else than the English text, and nothing would ever be marked."""
    translations = program("translations")
    english, page = tmp_path / "page.md", tmp_path / "page.zh.md"
    english.write_text("# Page\n\nText.\n")
    page.write_text("# 页\n\n文字。\n")
    monkeypatch.setattr(translations, "DOCS", tmp_path)

    def calls(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["translations.py", *words])
        return int(translations.main())

    assert translations.pages() == [page] and calls() == 1
    assert calls("--done", str(page)) == 0 and not translations.is_behind(page)
    english.write_text("# Page  \n\nText.\n\n")
    assert not translations.is_behind(page)
    english.write_text("# Page\n\nAnother text.\n")
    assert calls() == 1 and translations.is_behind(page) and not translations.is_admitted(page)
    assert calls("--later", str(page)) == 0 and translations.is_behind(page)
    english.write_text("# Page\n\nA third text.\n")
    assert calls() == 1
    assert calls("--done", str(page)) == 0 and not translations.is_behind(page)
    assert page.read_text().endswith("---\n\n# 页\n\n文字。\n") and page.read_text().count("\n---\n") == 1
    assert "page.zh.md is behind page.md" in capsys.readouterr().out


def test_every_key_of_the_config_guide_is_there() -> None:
    """Somebody would copy a key that no config has."""
    from mst_pretrain.runtime.config import load_config

    lines = (ROOT / "docs/guides/config.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| usual name |"))
    configs = (
        load_config(ROOT / "configs/pretrain/mst_deit-s_small-data.py"),
        load_config(ROOT / "configs/coco/mask_rcnn_own-data.py"),
    )
    asked = 0
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        first, second = (cell.split("`")[1::2] for cell in line.split("|")[2:4])
        same = "the same" in line.split("|")[3]
        for cfg, keys in zip(configs, (first, first if same else second), strict=True):
            for key in keys:
                if "." not in key:
                    continue
                node = cfg
                if key.startswith("+"):
                    key = key[1:].rpartition(".")[0]
                for step in key.split("."):
                    node = node[int(step) if step.isdecimal() else step]
                asked += 1
    assert asked > 20
