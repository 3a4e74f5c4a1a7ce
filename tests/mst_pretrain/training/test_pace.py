"""The remaining time, on a clock of the test's own."""

from __future__ import annotations

import pytest

from mst_pretrain.training.pace import RECENT, Pace


class Clock:
    """Seconds that only :meth:`pass_by` moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_rest_follows_the_present_rate(clock: Clock) -> None:
    """The remaining time would stay as it was after the run has become slower."""
    pace, left = Pace(clock), []
    assert pace.remaining(100, {}) is None
    for step in range(1, 41):
        clock.pass_by(20 if step <= 20 else 60)
        pace.end(10)
        left.append(pace.remaining(10 * (40 - step), {}))
    assert left[0] == 390 * 2 and left[9] == 300 * 2 and left[19] == 200 * 2
    assert (
        left[19 + RECENT // 2] == (40 - 20 - RECENT // 2) * 10 * 2
    )  # a few slow intervals: the median holds
    assert left[19 + RECENT // 2 + 1] == (40 - 20 - RECENT // 2 - 1) * 10 * 6  # most are slow now
    assert left[-1] == 0


def test_pauses_count_apart_and_for_those_still_to_come(clock: Clock) -> None:
    """A validation would make training look slow, and the rest lack the validations to come."""
    pace = Pace(clock)
    clock.pass_by(30)
    with pace.pause("validation"):
        clock.pass_by(100)
        with pace.pause("best.pth"):
            clock.pass_by(7)
    clock.pass_by(10)
    pace.wait(4)
    interval = pace.end(20)
    assert (interval.steps, interval.seconds) == (20, pytest.approx(40))
    assert interval.data_share == pytest.approx(0.1)
    assert pace.remaining(50, {}) == pytest.approx(100)
    assert pace.remaining(50, {"validation": 3, "last.pth": 2}) == pytest.approx(100 + 3 * 107)
    with pace.pause("last.pth"):
        clock.pass_by(5)
    assert pace.remaining(0, {"validation": 1, "last.pth": 2}) == pytest.approx(107 + 10)


def test_an_interval_begins_anew(clock: Clock) -> None:
    """Waiting for images in one interval would be reported in the next."""
    pace = Pace(clock)
    pace.wait(3)
    clock.pass_by(3)
    assert pace.end(1).data_share == pytest.approx(1)
    clock.pass_by(3)
    assert pace.end(1).data_share == 0
