"""Reading every file of a data set once: in parallel, with progress, and not again while it stays as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from mst_pretrain.data.decode import Undecodable, to_rgb, upright_size
from mst_pretrain.data.files import find_encoded_fault
from mst_pretrain.data.tar_index import index_tar
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.progress import Progress

from ..label_maps import id_counts, map_size

AT_ONCE = 2048  # files handed to the threads at a time: a million pending results would fill the memory

Facts = list[int]
State = tuple[int, int]  # size in bytes, time of modification in nanoseconds
T = TypeVar("T")
R = TypeVar("R")


class Unusable(Exception):
    """A file that cannot be used; its arguments say why, one each."""


class Record:
    """What was read of files that were found whole, by path, size and time of modification.

    A text file that only grows, one line a file: a run that is killed loses at most its last line. Faulty files are
    not in it, so they are read again.

    Args:
        path: The record, made where it is missing.
        root: Paths below it are kept relative to it, so the data set may move.

    Raises:
        UserError: The record cannot be written.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._known: dict[str, tuple[State, Facts]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+", encoding="utf-8", buffering=1)  # noqa: SIM115 (open for the whole run)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}). For data that may only be read, name a folder for "
                "what this tool writes: --out DIR"
            ) from error
        self._file.seek(0)
        line = "\n"
        for line in self._file:
            try:
                key, size, modified, facts = json.loads(line)
            except (ValueError, TypeError):  # the torn last line of a killed run
                continue
            self._known[key] = ((size, modified), facts)
        if not line.endswith("\n"):
            self._file.write("\n")

    def find(self, kind: str, path: Path, state: State) -> Facts | None:
        """The facts of a file that has not changed since, or None."""
        known = self._known.get(self._key(kind, path))
        return known[1] if known is not None and known[0] == state else None

    def add(self, kind: str, path: Path, state: State, facts: Facts) -> None:
        """Keep the facts of a whole file."""
        self._file.write(json.dumps([self._key(kind, path), *state, facts]) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _key(self, kind: str, path: Path) -> str:
        whole = Path(os.path.abspath(path))
        return f"{kind} {whole.relative_to(self.root) if whole.is_relative_to(self.root) else whole}"


class Verifier:
    """Reads files in threads; decoding leaves Python's lock free.

    Args:
        record: Of earlier runs.
        workers: Threads.
    """

    def __init__(self, record: Record, workers: int) -> None:
        self.record, self.workers = record, workers
        self.read, self.unchanged = 0, 0

    def read_all(
        self, what: str, paths: Sequence[Path], look: Callable[[Path], Facts]
    ) -> tuple[dict[Path, Facts], dict[Path, tuple[str, ...]]]:
        """Look at every file that is not in the record.

        Args:
            what: For the progress lines, e.g. "train2017: images".
            paths: Files.
            look: Gives what later checks need of a whole file, or raises :class:`Unusable`.

        Returns:
            The facts of the whole files, and why the others cannot be used.
        """
        kind, progress = look.__name__, Progress(f"reading {what}", len(paths))
        facts: dict[Path, Facts] = {}
        faults: dict[Path, tuple[str, ...]] = {}

        def visit(path: Path) -> tuple[State, Facts | None, Facts, tuple[str, ...]]:
            try:
                stat = path.stat()
                state = (stat.st_size, stat.st_mtime_ns)
                known = self.record.find(kind, path, state)
                return state, known, known or look(path), ()
            except Unusable as error:
                return (0, 0), None, [], error.args
            except OSError as error:
                return (0, 0), None, [], (error.strerror or str(error),)

        with closing(self.each(visit, paths)) as visits:
            for path, (state, known, found, why) in zip(paths, visits, strict=True):
                if why:
                    faults[path] = why
                else:
                    facts[path] = found
                    if known is None:
                        self.record.add(kind, path, state, found)
                self.unchanged += known is not None
                self.read += known is None
                progress.step(1)
        return facts, faults

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """``function`` of each item, in order and in threads, some thousand at a time.

        Close it when stopping early: what waits is dropped then.
        """
        remaining = iter(items)
        with ThreadPoolExecutor(max_workers=self.workers) as pool:
            while chunk := list(islice(remaining, AT_ONCE)):
                yield from pool.map(function, chunk)


def whole_image(path: Path) -> Facts:
    """Decode every pixel. What a decoder does not notice (some damage inside a JPEG) stays unnoticed.

    Returns:
        Width and height, upright as training sees it.

    Raises:
        Unusable: Truncated or not decodable.
    """
    _decode(path.read_bytes())
    return list(upright_size(path))


def whole_label_map(path: Path) -> Facts:
    """Decode a label map.

    Returns:
        Width, height, and the ids in it.

    Raises:
        Unusable: Truncated, not decodable, or not one channel of 8 bits.
    """
    encoded = path.read_bytes()
    fault = find_encoded_fault(lambda offset, length: encoded[offset : offset + length], len(encoded))
    if fault:
        raise Unusable(fault)
    try:
        counts = id_counts(path)
    except UserError as error:
        raise Unusable(str(error)) from error
    return [*map_size(path), *map(int, np.flatnonzero(counts))]


def whole_shard(path: Path) -> Facts:
    """Decode every image of a tar shard.

    Returns:
        The number of images.

    Raises:
        Unusable: The shard is damaged, or images in it are: one argument each.
    """
    try:
        index = index_tar(path)
    except UserError as error:
        raise Unusable(str(error)) from error
    faults = []
    with open(path, "rb") as file:
        for name, (offset, size) in zip(index.names, index.images.tolist(), strict=True):
            file.seek(offset)
            try:
                _decode(file.read(size))
            except Unusable as error:
                faults.append(f"{name.decode(errors='replace')}: {error}")
    if faults:
        raise Unusable(*faults)
    return [len(index.names)]


def _decode(encoded: bytes) -> None:
    fault = find_encoded_fault(lambda offset, length: encoded[offset : offset + length], len(encoded))
    if fault:
        raise Unusable(fault)
    try:
        to_rgb(encoded)
    except Undecodable as error:
        raise Unusable(f"not decodable: {error}") from error
