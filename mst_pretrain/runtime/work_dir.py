"""The folder that a run writes to: it can be written, has space, and belongs to one run at a time."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TextIO

from .errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".run.lock"
HELD = (errno.EACCES, errno.EAGAIN)  # what a lock of another process raises
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

_locks: dict[str, TextIO] = {}  # open until the process ends


def writable_folder(folder: str | Path, option: str) -> None:
    """Make a folder and write a block into it, which is removed at once.

    Args:
        folder: The folder.
        option: Of the command line that names another one.

    Raises:
        UserError: It cannot be made or written, or its disk is full.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except (OSError, ValueError) as error:
        raise _unwritable(folder, option, error) from error


def claim(work_dir: str | Path) -> None:
    """Keep a work directory for this process until it ends; no other run may then claim it.

    The lock is the operating system's, of this process and not of its children: whatever ends the process ends it
    too, and it holds between machines that share the disk. Windows has no such lock, and a line says so.

    Raises:
        UserError: The folder cannot be written, or another run has it.
    """
    writable_folder(work_dir, "--work-dir")
    if fcntl is None:
        print(f"{work_dir} cannot be locked on Windows: let no other run write there.", flush=True)
        return
    path = Path(work_dir, LOCK).resolve()
    if str(path) in _locks:  # closing a second file would end the lock
        return
    try:
        file = open(path, "a+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 (kept open)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                file.seek(0)
                raise _in_use(work_dir, path, file.read().strip()) from error
            print(
                f"{work_dir} cannot be locked ({error.strerror}): let no other run write there.", flush=True
            )
        file.truncate(0)
        started = datetime.now().astimezone().isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {platform.node()}, started {started}: {' '.join(sys.argv)}\n")
        file.flush()
    except OSError as error:
        raise _unwritable(work_dir, "--work-dir", error) from error
    _locks[str(path)] = file


def need_space(work_dir: str | Path, size: int) -> None:
    """Refuse to begin a run whose first checkpoint does not fit on the disk.

    Args:
        work_dir: Where it will be written.
        size: Bytes that it has at least.

    Raises:
        UserError: Less is free.
    """
    free = shutil.disk_usage(work_dir).free
    if free < size:
        raise UserError(
            f"--work-dir {work_dir}: {free >> 20} MiB are free, and one checkpoint takes at least {size >> 20} MiB. "
            "Free some space, or give another folder: --work-dir DIR"
        )


def explain_full_disk(work_dir: str | Path, error: OSError) -> UserError | None:
    """What to say of an error of writing in the middle of a run; None for every other error."""
    if error.errno not in NO_SPACE:
        return None
    return UserError(
        f"{error.filename or work_dir} cannot be written ({error.strerror}). Free some space, then start again with "
        "--resume: the newest checkpoint is whole."
    )


def _unwritable(folder: str | Path, option: str, error: Exception) -> UserError:
    why = getattr(error, "strerror", None) or error
    return UserError(f"{option} {folder} cannot be written ({why}). Give another folder: {option} DIR")


def _in_use(work_dir: str | Path, lock: Path, holder: str) -> UserError:
    return UserError(
        f"--work-dir {work_dir} is in use by another run ({holder or 'which is just starting'}), whose files this one "
        f"would overwrite. Wait for it or stop it, or give another folder: --work-dir DIR. If its machine has died, "
        f"delete {lock}."
    )
