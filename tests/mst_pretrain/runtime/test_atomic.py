"""The atomic writer: what several writers, killed writers and crashes leave."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mst_pretrain.runtime.atomic import STALE, replacing, write_json


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """A slow writer would go on writing into the file that a faster one has just finished."""
    path = tmp_path / "a.pth"
    with replacing(path) as slow:
        stream = open(slow, "wb")  # noqa: SIM115
        stream.write(b"slow")
        with replacing(path) as fast:
            fast.write_bytes(b"fast and whole")
        stream.write(b" and late")
        stream.flush()
        assert path.read_bytes() == b"fast and whole"
        stream.close()
    assert path.read_bytes() == b"slow and late"


def test_only_what_nobody_wrote_to_for_a_day_is_removed(tmp_path: Path) -> None:
    """A disk would fill with halves of killed writers, or a living writer's file be deleted under its hands: one on
    another machine, or in a container where its process id means somebody else."""
    path, dead = tmp_path / "a.pth", subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    young, old = STALE - 60, STALE + 60
    names = {
        f"a.pth.{platform.node()}-{dead.pid}-0123abcd.part": (young, True),
        f"a.pth.{platform.node()}-{dead.pid}-1123abcd.part": (old, False),
        f"a.pth.{platform.node()}-{os.getpid()}-2123abcd.part": (old, False),
        "a.pth.else-where.org-1-3123abcd.part": (young, True),
        "a.pth.else-where.org-1-4123abcd.part": (old, False),
        f"b.pth.{platform.node()}-{dead.pid}-5123abcd.part": (old, True),
        "a.pth.part": (old, True),
        "a.pth.mine-1.part": (old, True),
    }
    for name, (age, _) in names.items():
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (0, time.time() - age))
    write_json([], path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "a.pth",
        *(name for name, (_, kept) in names.items() if kept),
    }


def test_age_is_told_by_the_disks_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is a day ahead would delete what others are writing on the shared disk."""
    living = tmp_path / "a.pth.elsewhere-1-0123abcd.part"
    living.write_text("half")
    monkeypatch.setattr(time, "time", lambda: os.stat(living).st_mtime + 2 * STALE)
    write_json([], tmp_path / "a.pth")
    assert living.read_text() == "half"


def test_a_folder_is_as_old_as_its_newest_file(tmp_path: Path) -> None:
    """A large model that is being written into a folder made yesterday would be deleted."""
    for name, age in (("0123abcd", STALE + 60), ("1123abcd", 0)):
        folder = tmp_path / f"model.elsewhere-1-{name}.part"
        folder.mkdir()
        (folder / "weights").write_text("half")
        os.utime(folder / "weights", (0, time.time() - age))
        os.utime(folder, (0, time.time() - STALE - 60))
    with replacing(tmp_path / "model") as part:
        part.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.elsewhere-1-1123abcd.part"]


def test_only_durable_files_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of thousands of pictures would wait for the disk, or a checkpoint not."""
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    for durable, expected in ((False, 0), (True, 2)):
        waits.clear()
        with replacing(tmp_path / "a", durable) as part:
            part.write_text(str(durable))
        assert (tmp_path / "a").read_text() == str(durable) and len(waits) == expected
