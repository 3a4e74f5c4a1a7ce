"""Progress of long preparations as plain lines, which a batch system's log keeps too."""

from __future__ import annotations

import os
import time

INTERVAL = 10.0  # seconds


class Progress:
    """Says what is done, how much, and how long the rest takes, at most every ten seconds.

    Args:
        what: e.g. "fetching shards".
        total: Steps in all.
        quiet: Say nothing; by default every process of a node but its first.
    """

    def __init__(self, what: str, total: int, quiet: bool | None = None) -> None:
        self.what, self.total = what, total
        self.quiet = os.environ.get("LOCAL_RANK", "0") != "0" if quiet is None else quiet
        self.done, self.bytes = 0, 0
        self.started = self.said = time.monotonic()

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
        print(f"{self.what}: {self.done} of {self.total}{volume}{left}", flush=True)
