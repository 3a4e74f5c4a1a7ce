"""Images in WebDataset tar shards, read at random: the sampler orders, splits and resumes them as it does files."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, OrderedDict
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import UnusableImage, UserError
from ..runtime.progress import Progress
from ..runtime.terminal import shown
from .files import BLOCK, find_encoded_fault, first_of, in_threads, report_faults
from .labels import number_classes
from .suffixes import say_left_out
from .tar_index import index_tar

OPEN_FILES = 128  # per process: below the usual limit of 1024, whatever the number of shards


class ShardSource:
    """All images of some tar shards, shard after shard.

    A worker opens shards when it first reads from them. Forked workers may share open files: reads name their place.

    Args:
        paths: The shards.
        labelled: Also read the ``.cls`` members: an integer or a class name each.

    Raises:
        UserError: See :func:`read_headers`; or a label is missing.
    """

    def __init__(self, paths: list[Path], labelled: bool = False) -> None:
        self.paths = paths
        progress = Progress("reading the headers of shards", len(paths))
        indices = list(progress.over(in_threads(index_tar, paths)))
        self._shard = np.repeat(np.arange(len(paths)), [len(index.names) for index in indices])
        self._names = np.concatenate([index.names for index in indices])
        self._spans = np.concatenate([index.images for index in indices])
        left_out = sum((Counter(json.loads(str(index.left_out))) for index in indices), Counter())
        say_left_out(
            f"{paths[0]}{f' and {len(paths) - 1} more shards' if paths[1:] else ''}", len(self), left_out
        )
        self._files: OrderedDict[int, FileIO] = OrderedDict()
        self.labels: np.ndarray | None = None
        self.classes: list[str] = []
        if labelled:
            self._read_labels(np.concatenate([index.labels for index in indices]))

    def __len__(self) -> int:
        return len(self._spans)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}

    def name(self, index: int) -> str:
        """Shard and member."""
        return f"{self.paths[self._shard[index]]}/{shown(self._names[index].decode(errors='replace'))}"

    def read(self, index: int) -> bytes:
        """The member's bytes."""
        return self._read(self._shard[index], self._spans[index])

    def check(self) -> None:
        """See :func:`find_encoded_fault`; only some bytes of each member are read."""
        faults = []
        for shard, path in enumerate(self.paths):
            members = np.nonzero(self._shard == shard)[0]
            with open(path, "rb") as file:
                found = in_threads(partial(self._fault, file.fileno()), members, block=BLOCK)
                faults += [(self.name(i), fault) for i, fault in zip(members, found, strict=True) if fault]
        report_faults(faults, len(self))

    def _fault(self, file: int, index: int) -> str:
        start, size = map(int, self._spans[index])
        return find_encoded_fault(lambda offset, length: os.pread(file, length, start + offset), size)

    def _read(self, shard: int, span: np.ndarray) -> bytes:
        path, (offset, size) = self.paths[shard], map(int, span)
        try:
            file = self._files.pop(shard, None) or FileIO(path)
            self._files[shard] = file  # the last used is the last in line
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise UnusableImage(
                f"{path} cannot be read ({error.strerror}). Check that it is still there."
            ) from error
        if len(data) < size:
            raise UnusableImage(f"{path} became shorter while it was in use. Copy it again and start again.")
        return data

    def _read_labels(self, spans: np.ndarray) -> None:
        bare = [self.name(index) for index in np.nonzero(spans[:, 1] < 0)[0]]
        if bare:
            raise UserError(
                f"{len(bare)} of {len(self)} samples have no label (.cls): {first_of(bare)}. Labels are needed here; "
                "write one .cls member beside each image."
            )
        texts = [
            self._read(shard, span).decode(errors="surrogateescape").strip()
            for shard, span in zip(self._shard, spans, strict=True)
        ]
        self.labels, self.classes = number_classes(texts)


def names_shards(spec: str) -> bool:
    """Whether a spec is a pattern of shards or a URL."""
    return "::" in spec or bool(re.search(r"^pipe:|://|\.(tar|tgz|tar\.gz)$", spec))


def shards_in(folder: Path) -> list[Path]:
    """The tar files of a folder, in sorted order; those of several sets (train-000.tar, val-000.tar) are refused."""
    shards = sorted(folder.glob("*.tar"))
    sets = sorted({re.sub(r"\d+", "*", shard.name) for shard in shards})
    if len(sets) > 1:
        raise UserError(
            f"{folder} holds shards of {len(sets)} sets: {first_of(sets)}. Name one: '{folder}/{sets[0]}'"
        )
    return shards
