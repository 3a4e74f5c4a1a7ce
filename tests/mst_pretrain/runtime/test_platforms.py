"""Where Python lacks what only POSIX systems have, everything is imported, and what cannot work says so."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from mst_pretrain.data.pixel_cache import choose_cache
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime import atomic, environment, work_dir
from mst_pretrain.runtime.errors import InvalidValue

ROOT = Path(__file__).parents[3]
# A process of Python for Windows, as far as modules and signals go
AS_ON_WINDOWS = """
import os, signal, sys
for name in ("fcntl", "resource", "grp", "pwd", "termios"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "sigwaitinfo", "pthread_sigmask"):
    delattr(signal, name)
for name in ("register_at_fork", "sched_getaffinity", "fork"):
    delattr(os, name)
import mst_pretrain.register
from mst_pretrain.training.signals import STOP_SIGNALS, handle_signals
handle_signals()
print(*(number.name for number in STOP_SIGNALS))
"""


def test_everything_is_imported_without_posix() -> None:
    """On Windows no tool would start."""
    done = subprocess.run(
        [sys.executable, "-c", f"import mmengine.runner\n{AS_ON_WINDOWS}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["SIGTERM"]


def test_a_folder_that_cannot_be_locked_is_used_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training on Windows would fail, or two runs overwrite each other without a word of warning before."""
    monkeypatch.setattr(work_dir, "fcntl", None)
    work_dir.claim(tmp_path / "run")
    assert capsys.readouterr().out == (
        f"{tmp_path / 'run'} cannot be locked on Windows: let no other run write there.\n"
    )
    assert (tmp_path / "run").is_dir() and not list((tmp_path / "run").iterdir())


def test_memory_is_0_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of a run on Windows would end in an ImportError."""
    assert environment.peak_process_memory() > 2**20
    monkeypatch.setitem(sys.modules, "resource", None)
    assert environment.peak_process_memory() == 0


def test_files_are_written_where_folders_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint could be written on Windows, which opens no folder as a file."""
    opened: list[Path] = []

    def windows(path: Path, flags: int, mode: int = 0o777) -> int:
        assert not Path(path).is_dir()
        opened.append(Path(path))
        return real(path, flags, mode)

    real = atomic.os.open
    monkeypatch.setattr(atomic.sys, "platform", "win32")
    monkeypatch.setattr(atomic.os, "open", windows)
    atomic.write_text("whole", tmp_path / "a.txt")
    monkeypatch.undo()
    assert (tmp_path / "a.txt").read_text() == "whole" and len(opened) == 2  # made, and waited for


def test_no_cache_is_shared_where_workers_are_not_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers on Windows would each get a copy of the memory that they are to share, or none at all."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = open_source(str(tmp_path))
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    cache, said = choose_cache("auto", source, None, 1, "fork")
    assert cache is None and "not kept" in said
    with pytest.raises(InvalidValue, match="not on Windows"):
        choose_cache("host", source, None, 1, "fork")
