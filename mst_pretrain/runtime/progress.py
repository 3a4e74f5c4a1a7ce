"""Progress of long work as plain lines on standard error, which a batch system's log keeps too."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 10.0  # seconds


class Progress:
    """Says what is done and how long the rest takes: every ten seconds at most, in the first process of a node.

    Args:
        what: e.g. "fetching shards".
        total: Steps in all.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.quiet = os.environ.get("LOCAL_RANK", "0") != "0"
        self.done, self.bytes = 0, 0
        self.started = self.said = time.monotonic()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Pass ``items`` on; each is a step, finished when the next one is asked for."""
        for item in items:
            yield item
            self.step(1)

    def step(self, steps: int = 0, size: int = 0) -> None:
        """Count finished steps and bytes."""
        self.done, self.bytes = self.done + steps, self.bytes + size
        now = time.monotonic()
        if self.quiet or now - self.said < INTERVAL:
            return
        self.said = now
        volume = f", {self.bytes / 2**20:,.0f} MiB" if self.bytes else ""
        remaining = (now - self.started) / self.done * (self.total - self.done) if self.done else None
        left = "" if remaining is None else f", about {remaining / 60:.1f} min left"
        print(f"{self.what}: {self.done} of {self.total}{volume}{left}", file=sys.stderr, flush=True)
