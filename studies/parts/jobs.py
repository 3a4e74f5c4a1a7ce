"""Tools as child processes, several at a time, until the time is up; one that fails ends all."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mst_pretrain.runtime.atomic import write_text
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.resources import child_environment

ROOT = Path(__file__).parents[2]
FINISHED = "finished"  # beside what a call that ended well has written
COMMAND = "command.txt"  # of the first call


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """What every resumable study takes."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so long; run again to go on"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    parser.add_argument("--report", action="store_true", help="only write the report of what is there")
    parser.add_argument("--cfg-options", nargs="*", default=[], help="for every run, KEY=VALUE")


class Jobs:
    """The processes of a study.

    Args:
        count: How many at a time; they share the cores evenly.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = threading.Event()

    def run(self, steps: Sequence[Callable[[], bool]]) -> bool:
        """Every step, ``count`` at a time; whether all are done.

        Raises:
            BaseException: What the first step that failed raised; the processes of the others are ended.
        """
        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(step) for step in steps]
            try:
                return all([ended.result() for ended in futures])
            except BaseException:
                self.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.running):
                    process.terminate()
                raise

    def once(self, tool: str, arguments: Sequence[str], folder: Path, deadline: float) -> bool:
        """``tools/TOOL.py`` with ``folder`` as its work directory, unless that has ended well before.

        Returns:
            Whether it has ended; False when the time is up first.

        Raises:
            UserError: It failed, or the folder has a run of another command.
        """
        said = "\n".join([tool, *arguments]).replace(f"{ROOT}/", "")
        command_file = folder / COMMAND
        if command_file.exists() and command_file.read_text() != said:
            raise UserError(
                f"{folder} has a run of other options, see {command_file}. Give another --out, or the options of then."
            )
        write_text(said, command_file)
        if (folder / FINISHED).exists():
            return True
        command = [f"tools/{tool}.py", "--work-dir", str(folder), *arguments]
        if not self.call(command, folder / f"{tool}.log", deadline):
            return False
        (folder / FINISHED).touch()
        return True

    def call(self, arguments: Sequence[str], log: Path, deadline: float) -> bool:
        """A Python file of the repository with its arguments; False when the time is up first.

        Args:
            arguments: The file below the repository root, and what follows it.
            log: Receives all its output, after what is there.
            deadline: As ``time.monotonic``.

        Raises:
            UserError: It failed.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = str(max((os.cpu_count() or 1) // self.count, 1))
        env = child_environment(ROOT, OMP_NUM_THREADS=threads, OMP_WAIT_POLICY="PASSIVE")
        with open(log, "a") as stream:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=env, stdout=stream, stderr=subprocess.STDOUT
            )
            self.running.add(process)
            if self.stopped.is_set():  # the run that failed did not see this one
                process.terminate()
            try:
                code = process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
                return False
            finally:
                self.running.discard(process)
        if code:
            raise UserError(f"{arguments[0]} ended with code {code}. See {log}.")
        return True
