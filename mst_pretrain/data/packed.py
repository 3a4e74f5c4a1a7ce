"""A million file names without a million Python objects."""

from __future__ import annotations

import hashlib
import os
import zipfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..runtime.atomic import replacing
from ..runtime.errors import UserError


class PackedPaths:
    """Paths in one block of memory, in a fixed order.

    Every use of a Python object writes its reference count, and a forked worker then copies the memory around it: a
    list of a million paths ends up in every worker. One block of bytes is never written and stays shared.

    Args:
        names: The paths, absolute, or relative to ``root`` where one is given. A name that is not UTF-8 is kept as it
            is.
        root: The folder that they begin with.
    """

    def __init__(self, names: Iterable[str | os.PathLike[str]], root: str | os.PathLike[str] = "") -> None:
        packed, ends = bytearray(), array("q", [0])
        for name in names:
            packed += os.fsencode(name)
            ends.append(len(packed))
        self._packed, self._ends = bytes(packed), np.array(ends)
        folder = os.fspath(root)
        self._before = "" if folder in ("", ".") else os.path.join(folder, "")

    def digest(self) -> str:
        """Of the names without their root: equal for the same files in the same order."""
        return hashlib.blake2b(self._packed + self._ends.tobytes(), digest_size=16).hexdigest()

    def save(self, path: Path) -> None:
        """Write the names without their root, so that they may be found below another one."""
        with replacing(path) as part, open(part, "wb") as file:
            np.savez(file, names=np.frombuffer(self._packed, np.uint8), ends=self._ends)

    @classmethod
    def load(cls, path: Path, root: Path) -> PackedPaths:
        """The names of :meth:`save`, below ``root``."""
        paths = cls([], root)
        try:
            with np.load(path) as file:
                paths._packed, paths._ends = file["names"].tobytes(), file["ends"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} cannot be read ({error}). It lists the images of the run; remove it to list the folder again."
            ) from error
        return paths

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        place = range(len(self))[index]
        return os.path.join(
            self._before, os.fsdecode(self._packed[self._ends[place] : self._ends[place + 1]])
        )

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))
