"""Looking at every image before a run's first step: in one process, and only at files that are new or changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

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
RULES = 2  # counts changes of what a whole image is: files found whole by earlier rules are looked at again
UNKNOWN = 0  # stands for the digest of a file whose size and time cannot be asked; never kept


def check_once(check: Callable[[], None]) -> None:
    """Check a source in the first process only; the others wait, however long it takes, and fail if it fails.

    They ask the process group's store from time to time: a collective would end with a timeout after some minutes,
    and a million files may take longer.

    Raises:
        UserError: In every process, if images are unusable.
    """
    if not distributed.is_initialized():
        check()
        return
    store = distributed.distributed_c10d._get_default_store()
    if distributed.get_rank() == 0:
        verdict = "The first process failed while it looked at the images; its message stands above."
        try:
            check()
            verdict = WHOLE
        except UserError as error:
            verdict = str(error)
            raise
        finally:
            store.set(VERDICT, json.dumps(verdict))  # ASCII, whatever names are in it
        return
    try:
        while not store.check([VERDICT]):
            time.sleep(POLL)
        verdict = json.loads(store.get(VERDICT))
    except torch.distributed.DistError as error:
        raise UserError(
            "The first process ended while it looked at the images; its message stands above."
        ) from error
    if verdict != WHOLE:
        raise UserError(verdict)


def check_changed_files(paths: PackedPaths, origin: Path) -> None:
    """Look at every file (:func:`find_fault`); at one that was found whole before only after a change.

    What was found whole is kept in the cache folder, a file per origin: a 64-bit digest of each file's absolute path,
    size and time of its last change. A cache that cannot be read or written costs time, nothing else.

    Args:
        paths: The files.
        origin: The folder or list that named them.

    Raises:
        UserError: Some are missing, empty, truncated, or not images: their number and the first names.
    """
    here = os.getcwd()
    name = hashlib.sha256(os.fsencode(os.path.abspath(origin))).hexdigest()[:32]
    known_at = cache_folder("whole") / f"{name}.npy"
    known = _read_digests(known_at)

    def look(path: str) -> tuple[int, str]:
        digest = _digest(os.path.join(here, path))
        place = int(np.searchsorted(known, np.uint64(digest)))
        seen = place < len(known) and int(known[place]) == digest
        return digest, "" if seen else find_fault(path)

    whole = np.full(
        len(paths), UNKNOWN, np.uint64
    )  # a set of a million integers takes eleven times the memory
    faults: list[tuple[str, str]] = []
    progress = Progress("looking at images", len(paths))
    looks = in_threads(look, paths, block=BLOCK)
    for number, (path, (digest, fault)) in enumerate(zip(paths, looks, strict=True)):
        if fault:
            faults.append((path, fault))
        else:
            whole[number] = digest
        progress.step(1)
    now = np.unique(whole[whole != UNKNOWN])
    if not np.array_equal(now, known):
        _write_digests(known_at, now)
    report_faults(faults, len(paths))


def _digest(path: str) -> int:
    """Of a file's path, size and last change."""
    try:
        stat = os.stat(path)
    except OSError:
        return UNKNOWN
    state = b"%d\0%s\0%d\0%d" % (RULES, os.fsencode(path), stat.st_size, stat.st_mtime_ns)
    return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "little")


def _read_digests(path: Path) -> np.ndarray:
    """What was kept, [n] uint64 in ascending order; empty where it cannot be read."""
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
