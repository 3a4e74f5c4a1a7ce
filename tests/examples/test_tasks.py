"""How long the quickstart says that it will take, on a clock of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.quickstart.tasks import Plan, ToolCall

STAGES = {"first": 100.0, "second": 300.0, "third": 100.0}


class FakeClock:
    """Seconds that only the test moves."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_the_remaining_time_falls_by_the_seconds_that_pass(clock: FakeClock, tmp_path: Path) -> None:
    """It would stay at "about 9 minutes" for a quarter of an hour on a machine slower than planned."""
    plan = Plan(tmp_path, STAGES, clock)
    plan.begin()
    said = {}
    for seconds in range(10, 401, 10):  # four times slower than planned, at an even pace
        clock.now = 50.0 + seconds
        said[seconds] = plan.remaining("first", seconds / 400)
    assert said[10] == pytest.approx(390 + 4 * 400)
    assert {seconds: said[seconds] + seconds for seconds in said} == pytest.approx(
        dict.fromkeys(said, 2000.0)
    )
    plan.end("first")
    assert plan.remaining("first", 1.0) == pytest.approx(1600)


def test_a_stage_has_its_own_rate(clock: FakeClock, tmp_path: Path) -> None:
    """A stage would be expected to run as the ones before it did, whatever its own lines say."""
    plan = Plan(tmp_path, STAGES, clock)
    plan.begin()
    clock.now += 200  # twice as long as planned
    plan.end("first")
    plan.begin()
    assert plan.remaining("second", 0.0) == pytest.approx(2 * 300 + 2 * 100)  # nothing is known of it yet
    for _ in range(30):
        clock.now += 10
        plan.remaining("second", (clock.now - 250) / 1000)  # it takes 1000 seconds
    left = plan.remaining("second", 0.3)
    assert left == pytest.approx(700 + (200 + 1000) / 400 * 100)


def test_the_rate_is_that_of_the_last_minutes(clock: FakeClock, tmp_path: Path) -> None:
    """What another program took away an hour ago would count for ever."""
    plan = Plan(tmp_path, {"only": 100.0}, clock)
    plan.begin()
    share = 0.0
    for step in range(60):
        clock.now += 10
        share += 0.001 if step < 40 else 0.01
        left = plan.remaining("only", share)
    assert left == pytest.approx((1 - share) / 0.001)
    clock.now += 500  # and one that stands still takes longer
    assert plan.remaining("only", share) > 4 * left


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("01/02 03:04:05 - mmengine - INFO - Iter(train) [ 120/480]  lr: 1", (0.25, "120/480")),
        ("01/02 03:04:05 - mmengine - INFO - Epoch(train)  [1][ 10/40]  lr: 1", (0.25, "10/40")),
        ("pretrain  step  1,200/4,800   25.0 %  loss 5.43", (0.25, "1200/4800")),
        ("no iteration yet", (0.0, "starting")),
    ],
)
def test_progress_is_read_from_both_kinds_of_lines(
    tmp_path: Path, line: str, progress: tuple[float, str]
) -> None:
    """The quickstart would show "starting" until a stage ends."""
    log = tmp_path / "log"
    log.write_text(f"{line}\nanother line\n")
    assert ToolCall("mst", [], log).progress() == progress
