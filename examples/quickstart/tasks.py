"""Runs the tools as child processes, the two arms side by side, with progress and time left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.resources import child_environment

_ITERATION = re.compile(r"(?:Iter|Epoch)\((?:train|val|test)\)(?: \[\d+\])?\s*\[\s*(\d+)/(\d+)\]")


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
        self.name = ""
        self.start = self.began = self.said = time.monotonic()

    def begin(self, stage: str) -> None:
        """The next stage starts."""
        self.stage, self.name = self.stage + 1, stage
        self.began = self.said = time.monotonic()

    def say(self, share: float, text: str) -> None:
        """Print the present stage's progress and the time left.

        Args:
            share: Of the stage that is done, in [0, 1].
            text: What is done, e.g. ``mst 120/450``.
        """
        now = time.monotonic()
        self.said = now
        planned = self.weights[self.name]
        later = max(0.0, sum(self.weights.values()) - self.finished - planned)
        left = time_left(now - self.began, share, planned, later, self.finished, self.began - self.start)
        about = f", about {clock(left)} left" if left > 1 else ""
        where = f"[{self.stage}/{len(self.weights)}] {self.name}: {text}"
        print(f"{where}  ({clock(now - self.start)}{about})", flush=True)

    def say_sometimes(self, share: float, text: str, interval: float = 10.0) -> None:
        """As :meth:`say`, at most every ``interval`` seconds."""
        if time.monotonic() - self.said >= interval:
            self.say(share, text)

    def end(self, text: str = "done") -> None:
        """The present stage is finished."""
        self.say(1.0, text)
        self.finished += self.weights[self.name]

    def run(self, stage: str, calls: list[ToolCall], interval: float = 10.0) -> None:
        """Run tools at the same time, the processor's cores shared among them.

        Raises:
            UserError: One failed; its last lines and its log's path are in the message.
        """
        self.begin(stage)
        threads = str(max(1, (os.cpu_count() or 1) // len(calls)))
        # Threads that wait without spinning: several times faster where other programs use the cores too.
        environment = child_environment(self.root, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for call in calls:
                processes.append(call.start(self.root, environment))
            while None in (codes := [process.poll() for process in processes]) and not any(codes):
                self.say_sometimes(*_progress(calls, codes), interval)
                time.sleep(0.2)
        finally:
            for process in processes:
                process.kill()  # nothing where it has ended
        for call, code in zip(calls, codes, strict=True):
            if code:
                raise UserError(
                    f"{stage} ({call.name}) failed:\n{_last_lines(call.log)}\nThe whole log: {call.log}"
                )
        self.end(_progress(calls, codes)[1])


def _progress(calls: list[ToolCall], codes: list[int | None]) -> tuple[float, str]:
    """Share done of the slowest call, and what to say of all of them."""
    found = [(1.0, "done") if code == 0 else call.progress() for call, code in zip(calls, codes, strict=True)]
    return min(share for share, _ in found), ", ".join(
        f"{call.name} {text}" for call, (_, text) in zip(calls, found, strict=True)
    )


def time_left(
    elapsed: float, share: float, planned: float, later: float, finished: float, seconds: float
) -> float:
    """Seconds that the rest will take: of the present stage by its own rate, of the later ones by the pace so far.

    Args:
        elapsed: Seconds of the present stage.
        share: Of it that is done, in [0, 1].
        planned: Its planned seconds.
        later: Planned seconds of the stages after it.
        finished: Planned seconds of the stages before it, which took ``seconds``.
        seconds: See ``finished``.
    """
    # real seconds per planned second; the plan itself counts as half a minute of experience
    pace = (seconds + elapsed + 30) / (finished + share * planned + 30)
    # what starts a stage (imports) takes a while: until a twentieth is done, the plan is the better guide
    own = elapsed / share * (1 - share) if share >= 0.05 else max(0.0, pace * planned - elapsed)
    return own + pace * later


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _last_lines(log: Path, count: int = 15) -> str:
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else "\n".join(lines[-count:])
