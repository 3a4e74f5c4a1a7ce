"""The one atomic writer: every file of weights, results or preparations is whole at every moment."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError

STALE = 24 * 3600  # seconds without a write after which no writer of a temporary file can be alive
PART = re.compile(r"-\d+-[0-9a-f]{8}\.part$")


def file_sha256(path: str | Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def temporary_name(path: Path) -> Path:
    """A name beside ``path`` that no other writer has, on any machine."""
    return path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def remove_stale(part: Path, path: Path) -> None:
    """Remove the temporary files and folders of ``path`` that nothing has written to for a day.

    Both time stamps are the disk's own: machines that share it differ in clocks, and containers in process ids.

    Args:
        part: A temporary file that was made just now.
        path: What it will replace.
    """
    now = part.stat().st_mtime
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError):  # another writer may have removed it
            if PART.search(left.name) and now - _last_written(left) > STALE:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _last_written(part: Path) -> float:
    """Time stamp of a file, or of the newest entry of a folder."""
    return max(entry.stat().st_mtime for entry in (part, *(part.rglob("*") if part.is_dir() else ())))


@contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """A temporary file in the folder of ``path`` that takes its place when the block ends without an error.

    ``path`` is at every moment the whole old file, the whole new one, or not there; of several writers the last wins.

    Args:
        path: Its folder is made.
        durable: Wait until the new file is on disk, and remove what killed writers left. One of thousands of small
            files can do without: only a machine that crashes within the next seconds can lose it.

    Raises:
        UserError: The folder cannot be written or is full.
    """
    path = Path(path)
    part = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        if durable:
            remove_stale(part, path)
        yield part
        if durable:
            _to_disk(part)
        os.replace(part, path)
        if durable:
            _to_disk(path.parent)  # the new name is on disk too
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}). Check that its folder exists, allows writing and "
            "has space; what was there before is unchanged."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()  # after an error


def _to_disk(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk; Windows opens no folders and has no such call."""
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_atomic(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source`` in one step; without hard links, a copy of it."""
    with replacing(target) as part:
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, part)


def write_text(text: str, path: str | Path) -> None:
    """Write text as UTF-8 so that ``path`` is at every moment the old file or the whole new one."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(result: Any, path: str | Path, indent: int | None = 2) -> None:
    """Write JSON so that ``path`` is at every moment the old file or the whole new one."""
    write_text(json.dumps(result, indent=indent) + "\n", path)
