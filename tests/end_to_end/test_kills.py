"""A pretraining that is killed in the middle of something; all 45 places are ``tests/qa/kill_in_phases.py``."""

from __future__ import annotations

from pathlib import Path

from tests.qa.kill_in_phases import check

KILLS = [("optimizer", 9, "SIGUSR1"), ("checkpoint write", 15, "SIGKILL"), ("evaluation", 24, "SIGKILL")]


def test_a_killed_run_is_the_undisturbed_one(tmp_path: Path) -> None:
    """A run that was killed in half a step, half a file or half an evaluation would go on as another one."""
    result = check(tmp_path, KILLS)
    assert result == {"check": "kill_in_phases", "kills": 3, "wrong": 0, "processes_left": 0}
