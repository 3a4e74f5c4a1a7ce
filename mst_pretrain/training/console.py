"""What a terminal shows of a run folder's training: its lines, warnings and errors; all else is in train.log alone."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import mmengine

LINE = "line"  # extra of a record that is shown
BAR = "bar"  # another: below 1 it is a share of the run, of which a terminal draws a bar
WIDTH = 20  # characters of a bar
ERASE = "\r\x1b[K"  # the line that the cursor stands in
MMENGINE = Path(mmengine.__file__).parent  # whose warnings are about its own functions
TITLES = {logging.WARNING: "warning   ", logging.ERROR: "error     "}


class ConsoleHandler(logging.StreamHandler):
    """Shows what is meant for a person: lines as they are, warnings and errors with a title.

    On a terminal a training's lines become one bar that stays in its place; into a file every one is written.

    Args:
        stream: Where to; by default standard output.
        level: Records below it are left out.
    """

    def __init__(self, stream: TextIO | None = None, level: int = logging.INFO) -> None:
        super().__init__(stream or sys.stdout)
        self.setLevel(level)
        self.drawn = False  # whether the cursor stands behind a bar

    def filter(self, record: logging.LogRecord) -> Any:
        """Whether a record is shown here."""
        theirs = record.levelno < logging.ERROR and Path(record.pathname).is_relative_to(MMENGINE)
        shown = hasattr(record, LINE) or (record.levelno >= logging.WARNING and not theirs)
        return shown and super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            text, share = TITLES.get(record.levelno, "") + record.getMessage(), getattr(record, BAR, 1.0)
            if self.stream.isatty() and share < 1:
                self.draw(share, text)
                return
            before = ERASE if self.drawn else ""
            self.stream.write(f"{before}{text}\n")
            self.drawn = False
            self.flush()
        except (
            BrokenPipeError
        ):  # the reader has gone (| head): that ends no training, and train.log has it all
            pass
        except Exception:  # as every handler of logging: a line that cannot be printed ends no training
            self.handleError(record)

    def draw(self, share: float, text: str) -> None:
        """Show a bar in the place of the last one, on a terminal."""
        if self.stream.isatty():
            self.stream.write(f"{ERASE}{bar(share, text, shutil.get_terminal_size().columns)}")
            self.drawn = True
            self.flush()

    def leave(self) -> None:
        """Go to a new line behind a bar, which stays."""
        if self.drawn:
            self.stream.write("\n")
            self.drawn = False
            self.flush()


def leave_bars(logger: logging.Logger) -> None:
    """Whatever is printed next begins a line of its own."""
    for handler in logger.handlers:
        if isinstance(handler, ConsoleHandler):
            handler.leave()


def draw(logger: logging.Logger, share: float, text: str) -> None:
    """Show a bar on the terminal of a logger, if it has one; no file keeps it."""
    for handler in logger.handlers:
        if isinstance(handler, ConsoleHandler):
            handler.draw(share, text)


def bar(share: float, text: str, columns: int) -> str:
    """A bar and as much of a text as fits beside it.

    Args:
        share: Done, 0 to 1.
        text: One line.
        columns: Width of the terminal in characters.
    """
    done = round(WIDTH * min(max(share, 0.0), 1.0))
    return f"[{'#' * done}{'.' * (WIDTH - done)}] {text}"[: max(columns - 1, WIDTH)]


def warnings_to(logger: logging.Logger) -> Callable[[], None]:
    """From now on Python's warnings, which are about functions, go into a log's file; returns how to stop it."""
    before = warnings.showwarning

    def show(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        logger.info(warnings.formatwarning(message, category, filename, lineno, line).rstrip())

    def stop() -> None:
        if warnings.showwarning is show:
            warnings.showwarning = before

    warnings.showwarning = show
    return stop


def show_only_lines(logger: logging.Logger) -> None:
    """Exchange a logger's handlers of the terminal for a :class:`ConsoleHandler` each."""
    for place, handler in enumerate(logger.handlers):
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            console = ConsoleHandler(handler.stream, handler.level)
            console.filters = list(handler.filters)
            logger.handlers[place] = console
