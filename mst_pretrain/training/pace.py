"""How fast a run is, and how long the rest of it takes: the present stage's own rate, pauses counted apart."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

RECENT = 11  # intervals whose median is the rate


@dataclass(frozen=True)
class Interval:
    """What was measured between two lines.

    Attributes:
        steps: Iterations.
        seconds: Of training alone: without validations and checkpoints.
        data_share: Share of ``seconds`` that the step waited for images, 0 to 1.
    """

    steps: int
    seconds: float
    data_share: float


class Pace:
    """Measures intervals of training, and pauses of several kinds between its steps.

    Args:
        clock: Seconds that never go backward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.rates: deque[float] = deque(maxlen=RECENT)  # seconds of a step
        self.pauses: dict[str, deque[float]] = {}  # seconds by kind
        self.start()

    def start(self) -> None:
        """An interval begins."""
        self.began, self.paused, self.waited = self.clock(), 0.0, 0.0

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """What the block takes is not training; of pauses in a pause the outer one counts."""
        began, paused = self.clock(), self.paused
        yield
        seconds = self.clock() - began
        self.paused = paused + seconds
        self.pauses.setdefault(kind, deque(maxlen=RECENT)).append(seconds)

    def wait(self, seconds: float) -> None:
        """The step has waited for its images for so long."""
        self.waited += seconds

    def end(self, steps: int) -> Interval:
        """The interval of this many steps ends, and the next one begins."""
        seconds = max(self.clock() - self.began - self.paused, 1e-9)
        found = Interval(steps, seconds, min(self.waited / seconds, 1.0))
        if steps:
            self.rates.append(seconds / steps)
        self.start()
        return found

    def remaining(self, steps: int, pauses: dict[str, int]) -> float | None:
        """Seconds that the rest takes; None before the first interval has ended.

        Args:
            steps: Still to come.
            pauses: Number still to come, by kind; one that was not met yet counts nothing.
        """
        if not self.rates:
            return None
        rest = sum(
            count * median(self.pauses[kind]) for kind, count in pauses.items() if self.pauses.get(kind)
        )
        return steps * median(self.rates) + rest
