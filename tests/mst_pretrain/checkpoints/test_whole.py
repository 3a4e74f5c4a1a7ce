"""Which checkpoint a run goes on from when nobody names one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mst_pretrain.checkpoints.whole import damage, newest_whole, resumable
from mst_pretrain.runtime.errors import UserError


def write(path: Path, age: int, fill: float = 1.0) -> Path:
    """A small checkpoint that was written so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"a": torch.full((1000,), fill)}, "meta": {"iter": 1}}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def flip(path: Path, place: int) -> None:
    """Change one byte, and leave the time of the last change as it was."""
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_damage_of_every_kind_is_seen(tmp_path: Path) -> None:
    """A run would go on from weights of which one byte has changed, which torch.load does not notice."""
    path = write(tmp_path / "iter_2.pth", 0)
    assert damage(path) == ""
    content = path.read_bytes()
    weights = content.index(torch.full((1000,), 1.0).numpy().tobytes())
    flip(path, weights + 401)
    torch.load(path, weights_only=True)
    assert "checksum" in damage(path)
    path.write_bytes(content[: len(content) // 2])
    assert "cut off" in damage(path)
    path.write_bytes(b"")
    assert damage(path) == "it is empty"


def test_the_newest_whole_one_is_taken_and_the_damaged_one_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged checkpoint would end a run that has an older one, or be skipped without a word."""
    assert newest_whole(tmp_path) is None
    older, newer = write(tmp_path / "iter_2.pth", 20), write(tmp_path / "iter_4.pth", 10)
    os.link(newer, tmp_path / "latest.pth")
    write(tmp_path / "initial.pth", 0)
    write(tmp_path / "best_mIoU_iter_2.pth", 0)
    assert [path.name for path in resumable(tmp_path)] == ["latest.pth", "iter_2.pth"]
    assert newest_whole(tmp_path) == tmp_path / "latest.pth" and capsys.readouterr().out == ""
    flip(newer, 1200)
    assert newest_whole(tmp_path) == older
    said = capsys.readouterr().out
    assert f"warning: {tmp_path}/latest.pth is damaged" in said and said.count("\n") == 1
    flip(older, 1200)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole: .*latest\.pth.*iter_2\.pth"):
        newest_whole(tmp_path)


def test_a_run_folder_and_what_was_stopped_are_looked_at_too(tmp_path: Path) -> None:
    """--resume would go back to a numbered checkpoint behind the one that a signal has left."""
    write(tmp_path / "iter_4.pth", 30)
    stopped = write(tmp_path / "stopped.pth", 20)
    assert newest_whole(tmp_path) == stopped
    last = write(tmp_path / "checkpoints/last.pth", 10)
    write(tmp_path / "checkpoints/iter_6.pth", 15)
    assert newest_whole(tmp_path) == last == newest_whole(tmp_path, tidy=True)
