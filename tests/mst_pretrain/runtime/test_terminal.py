"""Names that imitate messages or steer a terminal, as our messages show them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mst_pretrain.checkpoints.inspection import inspect_checkpoint, report
from mst_pretrain.checkpoints.storage import load_checkpoint, save_safetensors
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.runtime.terminal import shown, shown_message

ESCAPE = "\x1b]0;title\x07\x1b[2J\x9b1A"
TURNED = "\u202egnp.exe"


def test_names_are_shown_in_one_line() -> None:
    """A file name could clear the screen, set the title, or write a line that looks like ours."""
    assert shown(f"a\n{ESCAPE}\u2028{TURNED}b") == (r"a\n\x1b]0;title\x07\x1b[2J\x9b1A\u2028\u202egnp.exeb")
    assert shown("Zürich 東京 \U0001f600.jpg") == "Zürich 東京 \U0001f600.jpg"
    assert shown_message(f"a\nb\t{ESCAPE}") == "a\nb\t" + r"\x1b]0;title\x07\x1b[2J\x9b1A"


def test_no_message_holds_an_escape_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data set from the net would be obeyed by the terminal of whoever checks it."""
    folder = tmp_path / f"photos{ESCAPE}"
    folder.mkdir()
    (folder / "x\nerror: all is well.jpg").write_bytes(b"\xff\xd8")
    Image.new("RGB", (8, 8)).save(folder / "b.jpg")
    with pytest.raises(SystemExit):
        run_cli(lambda: open_source(folder).check())
    said = capsys.readouterr().err
    assert said.startswith("error: 1 of 2 images cannot be used") and r"x\nerror: all is well.jpg" in said
    assert "\x1b" not in said and "\x9b" not in said and said.count("\n") == 1


def test_no_message_holds_a_weights_name_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint's keys would be obeyed by the terminal of whoever inspects it."""
    torch.save({f"a{ESCAPE}": 1.0}, tmp_path / "a.pth")
    from mst_pretrain.checkpoints.reading import read_file

    assert load_checkpoint(tmp_path / "a.pth")
    with pytest.raises(UserError):
        read_file(tmp_path / "a.pth")
    with pytest.raises(SystemExit):
        run_cli(lambda: read_file(tmp_path / "a.pth") and 0)
    said = capsys.readouterr().err
    assert r"a\x1b]0;title" in said and "\x1b" not in said


def test_what_inspection_prints_is_shown_safely(tmp_path: Path) -> None:
    """The metadata and names of a downloaded file would be obeyed by the terminal of whoever inspects it."""
    path = tmp_path / "a.safetensors"
    save_safetensors({f"w{ESCAPE}": torch.ones(2)}, path, {f"author{ESCAPE}": f"x{ESCAPE}"})
    said = report(inspect_checkpoint(path))
    assert r"author\x1b]0;title" in said and "\x1b" not in said and "\x9b" not in said
