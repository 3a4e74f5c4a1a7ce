"""Where a run's files lie, in both layouts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.run_files import RunFiles, newest_checkpoint, run_of


def test_both_layouts() -> None:
    """A tool would look for a checkpoint where no run writes it."""
    tidy, classic = RunFiles(Path("r"), True), RunFiles(Path("r"))
    assert tidy.latest == Path("r/checkpoints/last.pth") and classic.latest == Path("r/latest.pth")
    assert tidy.initial == Path("r/checkpoints/initial.pth") and classic.initial == Path("r/initial.pth")
    assert (tidy.log, tidy.metrics) == (Path("r/train.log"), Path("r/metrics.jsonl"))
    names = ("initial.pth", "best.pth", "iter_7.pth", "epoch_2.pth", "stopped.pth")
    assert [tidy.checkpoint("r", name).name for name in names] == [*names[:2], *3 * ["last.pth"]]
    assert [classic.checkpoint("x", name) for name in names] == [Path("x", name) for name in names]


def test_the_switch_is_a_truth_value(tmp_path: Path) -> None:
    """run_folder='False' would be taken for True."""
    assert RunFiles.of({"run_folder": True}, tmp_path).tidy and not RunFiles.of({}, tmp_path).tidy
    with pytest.raises(UserError, match=r"run_folder is 'False'. Set it to True or False\."):
        RunFiles.of({"run_folder": "False"}, tmp_path)


def test_resume_finds_the_newest_of_both_layouts(tmp_path: Path) -> None:
    """A run whose layout was changed at a resume would go back to where it changed."""
    assert newest_checkpoint(tmp_path) == tmp_path / "latest.pth"
    assert newest_checkpoint(tmp_path, tidy=True) == tmp_path / "checkpoints/last.pth"
    (tmp_path / "checkpoints").mkdir()
    for place, when in (("latest.pth", 1000), ("checkpoints/last.pth", 2000)):
        (tmp_path / place).touch()
        os.utime(tmp_path / place, (when, when))
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints/last.pth"
    os.utime(tmp_path / "latest.pth", (3000, 3000))
    assert newest_checkpoint(tmp_path, tidy=True) == tmp_path / "latest.pth"


def test_the_run_of_a_checkpoint() -> None:
    """A test's record would lack the run.json of its training."""
    assert run_of("runs/a/checkpoints/best.pth") == Path("runs/a") == run_of("runs/a/latest.pth")
