"""Trains and tests the missing cells of a comparison, one after the other; started again, it goes on where it was."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import STOPPED, Stopped, UserError
from mst_pretrain.runtime.options import is_read
from mst_pretrain.runtime.run_files import newest_checkpoint
from mst_toolkit.resources import child_environment, resources

from .identity import CAP, LAUNCH, config_sha256, deviations, run_beside, telling_options
from .record import RESULTS
from .rows import find, work_dir
from .table import read_record

ROOT = resources()
TRAIN, TEST = "tools/train.py", "tools/test.py"
AGAIN = "Run the same tools/compare.py command again to continue from here."


@dataclass(frozen=True)
class Job:
    """One training and its test.

    Attributes:
        config: Config file.
        row: Initialisation.
        seed: Of the training.
        options: ``KEY=VALUE`` as given; each tool gets those that it reads.
        parsed: The same by key.
        switches: Further arguments of the training.
        gpus: Processes.
    """

    config: str
    row: str
    seed: int
    options: tuple[str, ...]
    parsed: dict[str, Any]
    switches: tuple[str, ...]
    gpus: int

    @property
    def folder(self) -> Path:
        """Everything of it is there."""
        return Path(work_dir(self.config, self.row, self.seed))

    def given(self, tool: str) -> dict[str, Any]:
        """The options that the tool reads and that make a run another experiment."""
        read = {key: value for key, value in self.parsed.items() if is_read(key, tool)}
        return telling_options(read, load_config(self.config))

    def tested(self) -> bool:
        """Whether its finished training has a result of a test with the same config, options and data."""
        given = self.given(TEST)
        for path in self.folder.glob(f"{RESULTS}/*.json"):
            record = read_record(path)
            run = record["run"]
            if run is None or record["tta"] or record["options"] != given or deviations(record):
                continue
            if self._same(run) and (record["iteration"] or 0) >= self._length(run):
                return True
        return False

    def trained(self) -> bool:
        """Whether its last checkpoint is that of the last iteration; a UserError where its folder holds another run."""
        latest = newest_checkpoint(self.folder)
        record = run_beside(latest)
        if record is None or not latest.is_file():
            return False
        if not self._same(record):
            raise UserError(
                f"{self.folder} holds a run of other options ({record['options']}), of another version of "
                f"{self.config}, or of another row or seed ({record['init']}, {record['seed']}). Move it away, or give "
                "the options it was started with."
            )
        return int(load_checkpoint(latest).get("meta", {}).get("iter", 0)) >= self._length(record)

    def _length(self, run: dict[str, Any]) -> int:
        """Iterations that this job asks for; fewer than the run's where it is to stop early."""
        return min(int(run["iterations"]), int(self.parsed.get(CAP) or run["iterations"]))

    def _same(self, run: dict[str, Any]) -> bool:
        """Whether a run is this job's; its batch follows from the number of processes."""
        given = self.given(TRAIN) | ({"amp": True} if "--amp" in self.switches else {})
        had = {key: value for key, value in run["options"].items() if key not in LAUNCH}
        scaled = run["options"].get("auto_scale_lr", False) == ("--auto-scale-lr" in self.switches)
        return (
            (run["init"], run["seed"], run["config_sha256"])
            == (self.row, self.seed, config_sha256(self.config))
            and had == given
            and (scaled or "batch" not in run["options"])
        )

    def train_command(self) -> list[str]:
        """Continues where an earlier call was stopped."""
        options = [option for option in self.options if is_read(option.partition("=")[0], TRAIN)]
        arguments = ["--init", self.row, "--resume", *self.switches, "--cfg-options", *options]
        return self._command("train", [self.config], [*arguments, f"randomness.seed={self.seed}"])

    def test_command(self) -> list[str]:
        """Of the last checkpoint, into the same folder."""
        options = [option for option in self.options if is_read(option.partition("=")[0], TEST)]
        arguments = ["--work-dir", str(self.folder), *(["--cfg-options", *options] if options else [])]
        return self._command("test", [self.config, str(newest_checkpoint(self.folder))], arguments)

    def _command(self, tool: str, what: list[str], arguments: list[str]) -> list[str]:
        if self.gpus > 1:
            return ["bash", str(ROOT / f"tools/dist_{tool}.sh"), *what, str(self.gpus), *arguments]
        return [sys.executable, str(ROOT / f"tools/{tool}.py"), *what, *arguments]


def check_weights(jobs: Sequence[Job]) -> None:
    """Raise a UserError with origin and command of every row's weights that are missing or unfinished."""
    pairs = dict.fromkeys((job.config, job.row) for job in jobs)
    found = [find(row, load_config(config)).problem() for config, row in pairs]
    if problems := list(dict.fromkeys(filter(None, found))):
        lines = "\n  ".join(problems)
        raise UserError(f"{len(problems)} rows have no weights; leave them out with --rows, or:\n  {lines}")


def run(jobs: Sequence[Job], dry: bool = False) -> None:
    """Train and test what has no result yet, in this order; ``dry`` only prints the commands."""
    left = [job for job in jobs if not job.tested()]
    print(f"{len(jobs) - len(left)} of {len(jobs)} runs have a result, {len(left)} to do", flush=True)
    if not dry:
        check_weights(left)
    for job in left:
        commands = [] if job.trained() else [job.train_command()]
        for command in [*commands, job.test_command()]:
            print(f"$ {shlex.join(command)}", flush=True)
            if not dry:
                _call(command)


def _call(command: list[str]) -> None:
    code = subprocess.call(command, env=child_environment(ROOT, PYTHON=sys.executable))
    if code == STOPPED:
        raise Stopped(f"stopped: {shlex.join(command)}. {AGAIN}")
    if code:
        raise UserError(f"exit code {code} of: {shlex.join(command)}. Its message stands above. {AGAIN}")
