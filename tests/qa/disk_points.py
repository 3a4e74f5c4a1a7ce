"""A disk that is full, or a limit of file sizes, between two steps of a training; a config adds ``DiskHook``.

``MST_TEST_DISK=KIND:FIRST:LAST:ROOM``: before the step FIRST the disk of the work directory is filled but for ROOM
bytes (``full``), or no file may be longer than ROOM bytes (``limit``); after the step LAST all is as before.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from tests.qa.full_disk import FILLER, VARIABLE

BLOCK = 1 << 16


@HOOKS.register_module()
class DiskHook(Hook):
    """Takes the space away and gives it back."""

    priority = "HIGHEST"

    def __init__(self) -> None:
        given = os.environ.get(VARIABLE, "")
        self.kind, first, last, room = given.split(":") if given else ("", "0", "0", "0")
        self.first, self.last, self.room = int(first), int(last), int(room)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """A step begins."""
        step, filler = runner.iter + 1, Path(runner.work_dir).with_name(FILLER)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if self.kind == "limit" and step in (self.first, self.last + 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.room if step == self.first else hard, hard))
        elif self.kind == "full" and step == self.first:
            fill(filler, self.room)
        elif self.kind == "full" and step == self.last + 1:
            filler.unlink()


def fill(path: Path, room: int) -> None:
    """Write a file until its disk has no more than so many bytes left."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(BLOCK))
        except OSError:
            file.truncate(max(file.tell() - room, 0))
