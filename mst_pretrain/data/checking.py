"""Looking at every image before a run's first step: in one process, and only at files that are new or changed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import distributed

from ..runtime.atomic import replacing
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .fetch import cache_folder
from .files import BLOCK, find_fault, in_threads, report_faults
from .packed import PackedPaths

VERDICT = "mst_images"  # key of the process group's store
WHOLE = "whole"
POLL = 0.5  # seconds
UNKNOWN = 0  # stands for the digest of a file whose size and time cannot be asked; never kept


class Checkable(Protocol):
    """A source of images that can check them."""

    def check(self) -> None:
        """Raise UserError where images are unusable."""
        ...


def check_once(source: Checkable) -> None:
    """Check a source in the first process only; the others wait, however long it takes, and fail if it fails.

    They ask the process group's store from time to time: a collective would end with a timeout after some minutes,
    and a million files may take longer.

    Raises:
        UserError: In every process, if images are unusable.
    """
    if not distributed.is_initialized():
        source.check()
        return
    store = distributed.distributed_c10d._get_default_store()
    if distributed.get_rank() == 0:
        verdict = "The first process failed while it looked at the images; its message stands above."
        try:
            source.check()
            verdict = WHOLE
        except UserError as error:
            verdict = str(error)
            raise
        finally:
            store.set(VERDICT, verdict)
        return
    try:
        while not store.check([VERDICT]):
            time.sleep(POLL)
        verdict = store.get(VERDICT).decode()
    except torch.distributed.DistError as error:
        raise UserError(
            "The first process ended while it looked at the images; its message stands above."
        ) from error
    if verdict != WHOLE:
        raise UserError(verdict)


def check_changed_files(paths: PackedPaths, origin: Path) -> None:
    """As :func:`check_image_files`, but files found whole before are read again only after a change.

    What was found whole is kept in the cache folder, a file per origin: a 64-bit digest of each file's absolute path,
    size and time of its last change. A cache that cannot be read or written costs time, nothing else.

    Args:
        paths: The files.
        origin: The folder or list that named them.

    Raises:
        UserError: As :func:`check_image_files`.
    """
    here = os.getcwd()
    known_at = kept_digests(origin)
    known = _read_digests(known_at)

    def look(block: range) -> tuple[np.ndarray, list[str]]:
        names = [paths[index] for index in block]
        digests = np.array([_digest(os.path.join(here, name)) for name in names], np.uint64)
        seen = _among(digests, known)
        faults = []
        for place in np.nonzero(~seen)[0]:
            if fault := find_fault(names[place]):
                faults.append(f"{names[place]} ({fault})")
            else:
                seen[place] = True
        return digests[seen & (digests != UNKNOWN)], faults

    whole: list[np.ndarray] = []
    faults: list[str] = []
    progress = Progress("looking at images", len(paths))
    blocks = [range(start, min(start + BLOCK, len(paths))) for start in range(0, len(paths), BLOCK)]
    for block, (digests, found) in zip(blocks, in_threads(look, blocks), strict=True):
        whole.append(digests)
        faults += found
        progress.step(len(block))
    now = np.unique(np.concatenate(whole)) if whole else known
    if not np.array_equal(now, known):
        _write_digests(known_at, now)
    report_faults(faults, len(paths))


def kept_digests(origin: Path) -> Path:
    """Where the digests of an origin's files are kept."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(origin))).hexdigest()[:32]
    return cache_folder("whole") / f"{name}.npy"


def _among(digests: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of a few digests are among many that are sorted, [n] bool."""
    if not len(known):
        return np.zeros(len(digests), bool)
    return known.take(np.searchsorted(known, digests), mode="clip") == digests


def _digest(path: str) -> int:
    """Of a file's path, size and last change."""
    try:
        stat = os.stat(path)
    except OSError:
        return UNKNOWN
    state = b"%s\0%d\0%d" % (os.fsencode(path), stat.st_size, stat.st_mtime_ns)
    return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "little")


def _read_digests(path: Path) -> np.ndarray:
    try:
        digests = np.load(path)
        if digests.dtype == np.uint64 and digests.ndim == 1:
            return digests
    except (OSError, ValueError, EOFError):
        pass  # not kept yet, or damaged
    return np.empty(0, np.uint64)


def _write_digests(path: Path, digests: np.ndarray) -> None:
    try:
        with replacing(path) as part, open(part, "wb") as file:
            np.save(file, digests)
    except UserError as error:
        print(f"The next start looks at every image again: {error}", flush=True)
