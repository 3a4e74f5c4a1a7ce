"""Tools as child processes, several at a time; one that fails ends all."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mst_pretrain.runtime.atomic import write_text
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.resources import child_environment

ROOT = Path(__file__).parents[2]
FINISHED = "finished"  # beside what a call that ended well has written
COMMAND = "command.txt"  # of the first call


def parse_study(
    description: str | None,
    argv: Sequence[str] | None = None,
    add: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> tuple[argparse.Namespace, Path, str]:
    """What every resumable study takes.

    Args:
        description: For ``--help``.
        argv: The arguments; None takes the command line's.
        add: Adds a study's own arguments.

    Returns:
        The arguments, the folder of the real data, and the command for the report.

    Raises:
        UserError: MST_REAL_DATA does not name a folder.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    parser.add_argument("--report", action="store_true", help="only write the report of what is there")
    parser.add_argument("--cfg-options", nargs="*", default=[], help="for every run, KEY=VALUE")
    add(parser)
    words = sys.argv[1:] if argv is None else argv
    args, data = parser.parse_args(words), Path(os.environ.get("MST_REAL_DATA", ""))
    if "MST_REAL_DATA" not in os.environ or not data.is_dir():
        raise UserError("MST_REAL_DATA names no folder. Set it to the folder of the real photos.")
    script = f"studies/{Path(sys.argv[0]).name}"
    command = ["MST_REAL_DATA=DIR python", script, *(word for word in words if word != "--report")]
    return args, data.resolve(), " ".join(command)


class Jobs:
    """The processes of a study.

    Args:
        count: How many at a time; they share the cores evenly.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = threading.Event()

    def run(self, steps: Sequence[Callable[[], None]]) -> None:
        """Every step, ``count`` at a time.

        Raises:
            BaseException: What the first step that failed raised; the processes of the others are ended.
        """
        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(step) for step in steps]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.running):
                    process.terminate()
                raise

    def once(self, tool: str, arguments: Sequence[str], folder: Path) -> None:
        """``tools/TOOL.py`` with ``folder`` as its work directory, unless that has ended well before.

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
        if not (folder / FINISHED).exists():
            self.call([f"tools/{tool}.py", "--work-dir", str(folder), *arguments], folder / f"{tool}.log")
            (folder / FINISHED).touch()

    def call(self, arguments: Sequence[str], log: Path) -> None:
        """Run a Python file of the repository with its arguments.

        Args:
            arguments: The file below the repository root, and what follows it.
            log: Receives all its output, after what is there.

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
        code = process.wait()
        self.running.discard(process)
        if code:
            raise UserError(f"{arguments[0]} ended with code {code}. See {log}.")
