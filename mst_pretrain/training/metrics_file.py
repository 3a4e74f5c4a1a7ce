"""A run's numbers as they come: ``metrics.jsonl``, one JSON object a line, continued where a run is resumed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..runtime.atomic import write_text

TRAIN, EVAL = "train", "eval"


class MetricsFile:
    """One file of numbers, written by the first process alone.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[str] = []  # lines that could not be written yet

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a killed run may have left a part of one."""
        return list(read_metrics(self.path))

    def cut(self, step: int, evaluated: bool = True) -> list[dict[str, Any]]:
        """Leave the lines up to a step, and return them.

        Args:
            step: Finished iterations of the checkpoint that the run continues from.
            evaluated: Whether the validation after this step is kept too.
        """
        whole = self.read()
        kept = [
            line
            for line in whole
            if line["step"] <= step and (evaluated or line["step"] < step or line["stage"] != EVAL)
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in kept)
        if not self.path.is_file() or self.path.read_text(encoding="utf-8") != text:
            write_text(text, self.path)
        return kept

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line; a number that is not finite, which JSON does not have, becomes null.

        Where the disk is full the line waits in memory; no checkpoint can be written then, see :meth:`to_disk`.
        """
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in line.items()
        }
        self.waiting.append(f"{json.dumps(finite)}\n")
        with suppress(OSError):
            self._write()

    def to_disk(self) -> None:
        """Wait until all lines are on the disk, before a checkpoint that must not be ahead of them.

        Raises:
            OSError: The disk takes no more.
        """
        self._write()
        if self.path.is_file():
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())

    def _write(self) -> None:
        """Append the lines that wait, all or none."""
        if not self.waiting:
            return
        size = self.path.stat().st_size if self.path.is_file() else 0
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(self.waiting))
        except OSError:
            if self.path.is_file():
                os.truncate(self.path, size)
            raise
        self.waiting.clear()


def read_metrics(path: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``, without one that is cut off."""
    if not Path(path).is_file():
        return
    with open(path, encoding="utf-8") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "step" in line and "stage" in line:
                yield line
