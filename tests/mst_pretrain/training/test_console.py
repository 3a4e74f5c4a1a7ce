"""What a person sees of a training: lines into a file, one bar on a terminal, no dumps."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import mmengine
import pytest

from mst_pretrain.training.console import BAR, LINE, ConsoleHandler, bar, draw, leave_bars, warnings_to


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def logger_to(stream: io.StringIO) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(ConsoleHandler(stream))
    return logger


def test_a_file_has_the_lines_alone(tmp_path: Path) -> None:
    """Pages of hooks and versions would stand before the first line."""
    stream = io.StringIO()
    logger = logger_to(stream)
    logger.info("Hooks will be executed in the following order")
    logger.info("pretrain  step 1", extra={LINE: True, BAR: 0.5})
    logger.warning("Step 2 skipped")
    theirs = logging.LogRecord("m", logging.WARNING, f"{mmengine.__path__[0]}/x.py", 1, "an alias", (), None)
    logger.handle(theirs)
    logger.error("lost")
    draw(logger, 0.5, "between two lines")
    assert stream.getvalue() == "pretrain  step 1\nwarning   Step 2 skipped\nerror     lost\n"


def test_a_terminal_has_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal would scroll, or a warning be written into the bar."""
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    logger = logger_to(stream)
    logger.info("step 1", extra={LINE: True, BAR: 0.25})
    draw(logger, 0.3, "step 2")
    logger.warning("slow")
    leave_bars(logger)  # nothing is drawn
    logger.info("step 4", extra={LINE: True, BAR: 1.0})
    draw(logger, 0.0, "")
    leave_bars(logger)
    erase = "\r\x1b[K"
    assert stream.getvalue() == (
        f"{erase}[#####...............] step 1{erase}[######..............] step 2{erase}warning   slow\nstep 4\n"
        f"{erase}[....................] \n"
    )


def test_warnings_of_python_go_into_the_file() -> None:
    """The first lines of a training would be about the arguments of some library's function."""
    stream, kept = io.StringIO(), io.StringIO()
    logger = logger_to(stream)
    logger.addHandler(logging.StreamHandler(kept))
    before = warnings.showwarning
    stop = warnings_to(logger)
    with warnings.catch_warnings(record=False):
        warnings.simplefilter("always")
        warnings.warn("an argument is old", UserWarning, stacklevel=1)
    stop()
    assert warnings.showwarning is before
    assert stream.getvalue() == "" and "UserWarning: an argument is old" in kept.getvalue()


def test_a_bar_fits_into_its_line() -> None:
    """A bar longer than the terminal would leave a copy of itself at every step."""
    assert bar(0.5, "x" * 100, 40) == f"[{'#' * 10}{'.' * 10}] {'x' * 16}"
    assert bar(1.7, "", 80) == f"[{'#' * 20}] "
