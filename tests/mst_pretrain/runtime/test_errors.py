"""How a tool ends: exit codes and one message."""

from __future__ import annotations

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


def test_program_errors_keep_their_traceback() -> None:
    """A defect would be printed as the user's mistake."""

    def defect() -> int:
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        run_cli(defect)
