"""The folder of a run: refused at once where it cannot be written, is full, or belongs to another run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime import work_dir
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.work_dir import LOCK, claim, explain_full_disk, need_space, writable_folder

CHILD = """
import importlib.util, os, sys, time, types
package = types.ModuleType("p"); package.__path__ = [sys.argv[1]]; sys.modules["p"] = package
from p.work_dir import claim
claim(sys.argv[2])
if os.fork() == 0:  # as a data worker: it outlives its parent for a while
    time.sleep(20)
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_dir, "_locks", {})


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    """Two runs would write their checkpoints over each other; after kill -9 nobody could ever resume."""
    folder = Path(work_dir.__file__).parent
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "runs/x")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "claimed\n"
        with pytest.raises(
            UserError, match=rf"runs/x is in use by another run \(process {first.pid} on .*--work-dir DIR"
        ):
            claim(tmp_path / "runs/x")
        claim(tmp_path / "runs/y")
        first.kill()
        first.wait()
        claim(tmp_path / "runs/x")  # although the worker still lives
        assert f"process {os.getpid()} on" in (tmp_path / "runs/x" / LOCK).read_text()
        claim(
            tmp_path / "runs/x"
        )  # once more in the same process: a test of the newest checkpoint, a notebook
    finally:
        os.killpg(first.pid, signal.SIGKILL)


@pytest.mark.parametrize("held", [False, True])
def test_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], held: bool
) -> None:
    """On a disk that has no locks no run could start; a lock whose holder is unknown would end in a traceback."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EACCES if held else errno.ENOLCK, "No locks available")

    monkeypatch.setattr(work_dir.fcntl, "lockf", refuse)
    if held:
        with pytest.raises(
            UserError, match=r"in use by another run \(which is just starting\).*delete .*\.run\.lock"
        ):
            claim(tmp_path)
    else:
        claim(tmp_path)
        assert "cannot be locked (No locks available): let no other run" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["a file", "a file/below", "x" * 300, "nul\0name", "/proc/runs", "read-only", "full"], ids=repr
)
def test_folders_that_cannot_be_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A run would end in a traceback, or after hours at its first checkpoint."""
    (tmp_path / "a file").touch()

    def fail(**_: Any) -> None:
        raise OSError(
            *{"read-only": (30, "Read-only file system"), "full": (28, "No space left on device")}[name]
        )

    if name in ("read-only", "full"):
        monkeypatch.setattr(work_dir.tempfile, "TemporaryFile", fail)
    for option in ("--work-dir", "--out"):
        with pytest.raises(
            UserError, match=rf"^{option} .* cannot be written \(.+\)\. Give another folder: {option} DIR"
        ):
            writable_folder(tmp_path / name, option)
    with pytest.raises(UserError, match="cannot be written"):
        claim(tmp_path / name)


def test_a_checkpoint_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fine-tuning would lose its first epoch to a full disk."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(work_dir.shutil, "disk_usage", lambda _: usage(9 << 30, 0, 100 << 20))
    need_space(tmp_path, 99 << 20)
    with pytest.raises(
        UserError, match=r"100 MiB are free, and one checkpoint takes at least 400 MiB.*--work-dir DIR"
    ):
        need_space(tmp_path, 400 << 20)


def test_only_a_full_disk_is_called_full() -> None:
    """A missing file would be explained by a full disk, or a full disk by a traceback."""
    full = explain_full_disk("runs/x", OSError(errno.ENOSPC, "No space left on device", "runs/x/log.json"))
    assert full is not None and str(full).startswith(
        "runs/x/log.json cannot be written (No space left on device)"
    )
    assert explain_full_disk("runs/x", FileNotFoundError(errno.ENOENT, "No such file", "a.jpg")) is None
