"""The program of mutated files: a small number of each kind, and that it notices what it looks for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mutated_files
from mutated_files import Subject, Tally, Watch, try_all, try_one
from mutated_subjects import checkpoints, coco, shards

from mst_pretrain.runtime.errors import UserError


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.mark.parametrize(("subject_of", "count"), [(checkpoints, 30), (shards, 40), (coco, 8)])
def test_mutated_files_end_in_one_message(
    subject_of: Callable[[Path], Subject],
    count: int,
    watch: Watch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A damaged file would end in a traceback or a hang, run something, or leave files behind."""
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    tally = try_all(subject_of(tmp_path), count, 1, tmp_path, watch)
    assert tally.defects == []
    assert sum(tally.outcomes.values()) == count and len(tally.outcomes) >= 4


def hang(path: Path) -> str:
    while path:
        pass
    return ""


def leave(path: Path) -> str:
    path.with_name("left").touch()
    return "read"


def refuse(path: Path) -> str:
    raise UserError(f"{path} is truncated.")


BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "an error of ours": (lambda path: str({}["key"]), "KeyError at"),
    "a hang": (hang, "took more than"),
    "a program": (lambda path: subprocess.run([sys.executable, "-c", ""]) and "read", "ran subprocess.Popen"),
    "a shell": (lambda path: str(os.system("true")), "ran os.system"),
    "a file": (leave, "left behind ['left']"),
    "a message without the file": (lambda path: refuse(Path("x")), "names no place"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_defect_is_noticed(
    name: str, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program would call everything well."""
    monkeypatch.setattr(mutated_files, "LIMIT", 0.3 if name == "a hang" else 10.0)
    read, message = BAD[name]
    path = tmp_path / "a.pth"
    path.write_bytes(bytes(2000))
    tally = Tally()
    try_one(Subject("test", [(path, bytes(2000))], read), 0, 0, watch, tmp_path, tally)
    assert len(tally.defects) == 1 and message in tally.defects[0]
    assert path.read_bytes() == bytes(2000)


def test_a_refusal_is_no_defect(watch: Watch, tmp_path: Path) -> None:
    """The program would call a good message a defect."""
    path = tmp_path / "a.pth"
    path.write_bytes(bytes(2000))
    tally = Tally()
    try_one(Subject("test", [(path, bytes(2000))], refuse), 0, 0, watch, tmp_path, tally)
    assert tally.defects == [] and "refused: truncated" in next(iter(tally.outcomes))[1]
