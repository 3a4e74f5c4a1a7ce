"""How a tool ends: exit codes and one message."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from mst_pretrain.runtime.errors import UserError, run_cli


def ends(main: Callable[[], int | None]) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run_cli(main)
    return ended.value.code


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """A script could not tell success, a tool's own code, bad input and Ctrl-C apart."""

    def bad_input() -> int:
        raise UserError("a.pth is truncated. Copy it again.")

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert [ends(main) for main in (lambda: None, lambda: 3, bad_input, interrupted)] == [0, 3, 2, 130]
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "error: a.pth is truncated. Copy it again.\n"


@pytest.mark.parametrize(
    ("message", "adds"),
    [
        ("Folder ~/x (the COCO data root) does not exist. Check it.", True),
        ("Image folder $HOME/x does not exist. Check it.", True),
        ("--resume ~tom/a.pth does not exist.", True),
        ("checkpoint not found: ${RUNS}/a.pth.", True),
        ("COCO annotation file '~/a.json' does not exist.", True),
        ("Folder /home/x does not exist.", False),
        ("Folder /data/a~b does not exist.", False),
        ("~/a.pth is truncated.", False),
    ],
)
def test_what_no_shell_wrote_out_is_said(
    message: str, adds: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody would look for a folder that is there, since quotes kept the shell from expanding its name."""

    def main() -> int:
        raise UserError(message)

    assert ends(main) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}") and ("$VARIABLES are not expanded" in said) == adds


def test_program_errors_keep_their_traceback() -> None:
    """A defect would be printed as the user's mistake."""

    def defect() -> int:
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        run_cli(defect)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_can_be_printed_on_any_terminal(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """A tool would end in a UnicodeEncodeError at a photograph named in another alphabet, after hours of work."""
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding))
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(err, encoding))

    def main() -> None:
        print("\u03b1\udcff.jpg", flush=True)
        raise UserError("caf\u00e9\udce9.jpg is broken.")

    assert ends(main) == 2
    assert out.getvalue().strip() == "\u03b1\udcff.jpg".encode(encoding, "backslashreplace")
    assert err.getvalue().strip() == "error: caf\u00e9\udce9.jpg is broken.".encode(
        encoding, "backslashreplace"
    )
