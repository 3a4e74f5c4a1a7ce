"""Runs the tools as child processes, the two arms side by side, with progress and time left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.resources import child_environment

# The last iteration in MMEngine's lines, and in those of a run folder
_ITERATION = re.compile(
    r"(?:Iter|Epoch)\((?:train|val|test)\)\s*(?:\[\d+\])?\s*\[\s*(\d+)/(\d+)\]|\bstep +([\d,]+)/([\d,]+)"
)
RECENT = 12  # measurements that a stage's rate comes from, the oldest against the newest


@dataclass
class ToolCall:
    """One call of a tool.

    Attributes:
        name: What the progress line calls it.
        arguments: The tool below the repository root, and its arguments.
        log: Receives all its output.
    """

    name: str
    arguments: list[str]
    log: Path

    def start(self, root: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Its process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *self.arguments]
        with open(self.log, "wb") as stream:
            return subprocess.Popen(
                command, cwd=root, stdout=stream, stderr=subprocess.STDOUT, env=environment
            )

    def progress(self) -> tuple[float, str]:
        """Share done in [0, 1] and its text, from the last iteration in the log."""
        with open(self.log, "rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - 4096))
            found = _ITERATION.findall(stream.read().decode(errors="replace"))
        if not found:
            return 0.0, "starting"
        done, total = (int(number.replace(",", "")) for number in found[-1] if number)
        return done / max(total, 1), f"{done}/{total}"


class Plan:
    """Runs stages one after the other and says how long the rest will take.

    Args:
        root: The repository.
        weights: Planned seconds by stage name, in the order they will run; the pace met corrects them.
        clock: Seconds that never go backward.
    """

    def __init__(
        self, root: Path, weights: dict[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root, self.weights, self.clock = root, weights, clock
        self.finished: dict[str, float] = {}  # seconds that stages took
        self.stage = 0
        self.start = clock()

    def begin(self) -> None:
        """A stage begins."""
        self.stage += 1
        self.began = self.clock()
        self.measured: deque[tuple[float, float]] = deque([(self.began, 0.0)], maxlen=RECENT)

    def end(self, stage: str) -> None:
        """It is done."""
        self.finished[stage] = self.clock() - self.began

    def remaining(self, stage: str, share: float) -> float:
        """Seconds that are left: of this stage by its own recent rate, of the others by the plan and the pace met.

        Args:
            stage: The present one.
            share: Of it that is done, 0 to 1.
        """
        now = self.clock()
        if share > self.measured[-1][1]:
            self.measured.append((now, share))
        (then, before), (_, last) = self.measured[0], self.measured[-1]
        planned = sum(self.weights[name] for name in self.finished)
        took = sum(self.finished.values())
        left = 0.0
        if stage not in self.finished:
            rate = (last - before) / max(now - then, 1e-9)  # a stage that stands still becomes slower
            pace = took / planned if planned else 1.0
            left = (
                (1 - share) / rate if rate > 0 else max(pace * self.weights[stage] - (now - self.began), 0.0)
            )
            took, planned = took + now - self.began + left, planned + self.weights[stage]
        others = [weight for name, weight in self.weights.items() if name not in (*self.finished, stage)]
        return left + (took / planned if planned else 1.0) * sum(others)

    def run(self, stage: str, calls: list[ToolCall], interval: float = 10.0) -> None:
        """Run tools at the same time, the processor's cores shared among them.

        Raises:
            UserError: One failed; its last lines and its log's path are in the message.
        """
        self.begin()
        threads = str(max(1, (os.cpu_count() or 1) // len(calls)))
        # Threads that wait without spinning: several times faster where other programs use the cores too.
        environment = child_environment(self.root, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        processes: list[subprocess.Popen[bytes]] = []
        said = self.clock()
        try:
            for call in calls:
                processes.append(call.start(self.root, environment))
            while None in (codes := [process.poll() for process in processes]) and not any(codes):
                if self.clock() - said >= interval:
                    self._say(stage, calls, codes)
                    said = self.clock()
                time.sleep(0.2)
        finally:
            for process in processes:
                process.kill()  # nothing where it has ended
        for call, code in zip(calls, codes, strict=True):
            if code:
                raise UserError(
                    f"{stage} ({call.name}) failed:\n{_last_lines(call.log)}\nThe whole log: {call.log}"
                )
        self.end(stage)
        self._say(stage, calls, codes)

    def _say(self, stage: str, calls: list[ToolCall], codes: list[int | None]) -> None:
        progress = [
            (1.0, "done") if code == 0 else call.progress() for call, code in zip(calls, codes, strict=True)
        ]
        left = self.remaining(stage, min(share for share, _ in progress))
        elapsed = self.clock() - self.start
        states = ", ".join(f"{call.name} {text}" for call, (_, text) in zip(calls, progress, strict=True))
        about = f", about {clock(left)} left" if left > 1 else ""
        print(f"[{self.stage}/{len(self.weights)}] {stage}: {states}  ({clock(elapsed)}{about})", flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _last_lines(log: Path, count: int = 15) -> str:
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else "\n".join(lines[-count:])
