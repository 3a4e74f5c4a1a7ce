"""Runs the tools as child processes, the two arms side by side, with progress and time left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.resources import child_environment

_ITERATION = re.compile(r"(?:Iter|Epoch)\((?:train|val|test)\)(?: \[\d+\])?\s*\[\s*(\d+)/(\d+)\]")


@dataclass
class Task:
    """One tool call.

    Attributes:
        name: What the progress line calls it.
        arguments: The tool below the repository root, and its arguments.
        log: Receives all its output.
    """

    name: str
    arguments: list[str]
    log: Path
    process: subprocess.Popen | None = field(default=None, repr=False)

    def progress(self) -> tuple[float, str]:
        """Share done in [0, 1] and its text, from the last iteration in the log."""
        if self.process is not None and self.process.poll() == 0:
            return 1.0, "done"
        with open(self.log, "rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - 4096))
            found = _ITERATION.findall(stream.read().decode(errors="replace"))
        if not found:
            return 0.0, "starting"
        done, total = map(int, found[-1])
        return done / max(total, 1), f"{done}/{total}"


class Plan:
    """Runs stages one after the other and says how long the rest will take.

    Args:
        root: The repository.
        weights: Planned seconds by stage name, in the order they will run; the pace met corrects them.
    """

    def __init__(self, root: Path, weights: dict[str, float]) -> None:
        self.root, self.weights = root, weights
        self.finished = 0.0
        self.stage = 0
        self.start = time.monotonic()

    def run(self, stage: str, tasks: list[Task], interval: float = 10.0) -> None:
        """Run tasks at the same time, the processor's cores shared among them.

        Raises:
            UserError: One failed; its last lines and its log's path are in the message.
        """
        self.stage += 1
        threads = str(max(1, (os.cpu_count() or 1) // len(tasks)))
        # Threads that wait without spinning: several times faster where other programs use the cores too.
        environment = child_environment(self.root, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        for task in tasks:
            task.log.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, *task.arguments]
            with open(task.log, "wb") as stream:
                task.process = subprocess.Popen(
                    command, cwd=self.root, stdout=stream, stderr=subprocess.STDOUT, env=environment
                )
        try:
            self._watch(stage, tasks, interval)
        finally:
            for task in tasks:
                if task.process is not None and task.process.poll() is None:
                    task.process.kill()
        self.finished += self.weights[stage]
        self._say(stage, tasks)

    def _watch(self, stage: str, tasks: list[Task], interval: float) -> None:
        last = time.monotonic()
        while any(task.process is not None and task.process.poll() is None for task in tasks):
            for task in tasks:
                if task.process is not None and task.process.poll() not in (None, 0):
                    break
            else:
                if time.monotonic() - last >= interval:
                    self._say(stage, tasks)
                    last = time.monotonic()
                time.sleep(0.2)
                continue
            break
        for task in tasks:
            if task.process is not None and task.process.poll() not in (None, 0):
                raise UserError(
                    f"{stage} ({task.name}) failed:\n{_last_lines(task.log)}\nThe whole log: {task.log}"
                )

    def _say(self, stage: str, tasks: list[Task]) -> None:
        progress = [task.progress() for task in tasks]
        running = any(task.process is not None and task.process.poll() is None for task in tasks)
        share = min(share for share, _ in progress) * self.weights[stage] if running else 0.0
        elapsed = time.monotonic() - self.start
        done = self.finished + share
        # Seconds per planned second so far; the plan itself counts as a minute of experience.
        pace = (elapsed + 60) / (done + 60)
        left = pace * (sum(self.weights.values()) - done)
        states = ", ".join(f"{task.name} {text}" for task, (_, text) in zip(tasks, progress, strict=True))
        about = f", about {clock(left)} left" if left > 1 else ""
        print(f"[{self.stage}/{len(self.weights)}] {stage}: {states}  ({clock(elapsed)}{about})", flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _last_lines(log: Path, count: int = 15) -> str:
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else "\n".join(lines[-count:])
