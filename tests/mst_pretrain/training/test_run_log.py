"""What the log of a run folder says beside its numbers: waiting for images, and how the run is."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.hooks import CheckpointHook

from mst_pretrain.training.health import HealthHook
from mst_pretrain.training.pace import Interval
from mst_pretrain.training.run_log import RunLogHook, health_of
from mst_pretrain.training.stages import checkpoints_left, images_per_step


def said(intervals: list[Interval], caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings after each of these intervals, with the number of the interval."""
    logger = logging.getLogger("test_run_log")
    runner: Any = SimpleNamespace(logger=logger, train_dataloader=SimpleNamespace(num_workers=4))
    hook, found = RunLogHook(interval=10), []
    for number, interval in enumerate(intervals, 1):
        hook.recent.append(interval)
        hook.lines = number
        caplog.clear()
        hook._warn(runner)
        found += [f"{number}: {text}" for text in caplog.messages]
    return found


def test_waiting_for_images_is_said_and_not_at_every_line(caplog: pytest.LogCaptureFixture) -> None:
    """The cause of a slow training would stay unknown, or be repeated at every line."""
    text = "20 % of the time is spent waiting for images. Raise --workers (now 4), or copy the data to a local disk."
    slow = [Interval(10, 10.0, 0.2) for _ in range(105)]
    assert said(slow, caplog) == [f"5: {text}", f"105: {text}"]


@pytest.mark.parametrize(
    "interval",
    [Interval(10, 60.0, 0.09), Interval(10, 0.1, 0.9)],
    ids=["little of the time", "a run of a few seconds"],
)
def test_waiting_that_costs_little_is_not_said(interval: Interval, caplog: pytest.LogCaptureFixture) -> None:
    """Every trial run would begin with a warning."""
    assert said([interval] * 20, caplog) == []


def test_one_slow_interval_is_no_trend(caplog: pytest.LogCaptureFixture) -> None:
    """The start of the workers would be called a slow disk."""
    assert said([Interval(10, 10.0, 0.4), *[Interval(10, 10.0, 0.0)] * 20], caplog) == []


def test_health_in_words() -> None:
    """A collapsed run would be called healthy, or a detector's health be spoken of."""
    hook = HealthHook()
    runner = SimpleNamespace(hooks=[hook])
    assert health_of(runner) == "healthy" and health_of(SimpleNamespace(hooks=[])) == ""
    hook.skipped = 3
    assert health_of(runner) == "3 steps skipped"
    hook.collapsed_iters = 1500
    assert health_of(runner) == "collapsed for 1,500 steps"


@pytest.mark.parametrize(("by_epoch", "expected"), [(False, [3, 3, 2, 0]), (True, [2, 2, 1, 0])])
def test_checkpoints_still_to_come(by_epoch: bool, expected: list[int]) -> None:
    """The remaining time would lack the checkpoints, or count them by the wrong measure."""
    hook = CheckpointHook(interval=4 if not by_epoch else 1, by_epoch=by_epoch)
    loop = SimpleNamespace(dataloader=[0] * 5)
    runner = SimpleNamespace(hooks=[hook], train_loop=loop, max_iters=14)
    assert [checkpoints_left(runner, step) for step in (0, 3, 5, 12)] == expected


def test_images_of_a_step() -> None:
    """The rate would be that of an optimizer step where a line counts micro-batches, or the other way round."""
    pretraining = SimpleNamespace(schedule_iters=1, global_batch=64)
    assert images_per_step(pretraining) == 64
    assert images_per_step(SimpleNamespace(per_process=4, global_batch=16)) == 4
