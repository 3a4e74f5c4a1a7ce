"""The first steps of a run, as it will make them, in a folder that is thrown away; a checkpoint written and read."""

from __future__ import annotations

import copy
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import distributed

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.distributed import rank, world_size
from mst_pretrain.runtime.environment import peak_process_memory
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.run_files import LOGGERS
from mst_pretrain.training.launch import run
from mst_pretrain.training.schedule_and_teacher import unwrap

FEWEST, MOST = 2, 8  # steps
COUNTED = 6  # the last ones at most: the first wait for kernels and workers
SECONDS = 60.0  # after which no further step begins
NEVER = 10**9
OUTPUT = "rehearsal.log"


class Enough(Exception):
    """The rehearsal has seen what it wanted."""


@dataclass
class Rehearsed:
    """What the steps of one process took.

    Attributes:
        steps: Made.
        step_seconds: Of a step that has its images, median.
        peak: Bytes: the GPU's tensors, or this process.
        loss: Of the last step.
        iterations: That a run has left.
        per_epoch: Iterations of an epoch.
        batch: Images of an iteration of one process.
        checkpoint: Bytes of one; 0 in every process but the first.
        write_seconds: Of the checkpoint.
        read_seconds: Of the checkpoint.
    """

    steps: int
    step_seconds: float
    peak: int
    loss: float
    iterations: int
    per_epoch: int
    batch: int
    checkpoint: int = 0
    write_seconds: float = 0.0
    read_seconds: float = 0.0


class RehearsalHook(Hook):
    """Times steps, and ends the run after some.

    Args:
        most: Steps.
    """

    priority = "LOWEST"

    def __init__(self, most: int) -> None:
        self.most = most
        self.seconds: list[float] = []
        self.loss = math.nan
        self.began = self.has_data = 0.0

    def before_train(self, runner: Any) -> None:
        """The first step begins."""
        self.began = time.perf_counter()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The images are there."""
        self.has_data = time.perf_counter()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A step has ended; all processes end after the same one.

        Raises:
            Enough: It was the last.
            UserError: The loss is not finite.
        """
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self.has_data)
        self.loss = float(outputs["loss"]) if outputs and "loss" in outputs else math.nan
        if outputs and "loss" in outputs and not math.isfinite(self.loss):
            raise UserError(
                f"the loss of step {len(self.seconds)} is {self.loss}. Lower optim_wrapper.optimizer.lr, or train in "
                "float32: --cfg-options optim_wrapper.dtype=float32"
            )
        over = len(self.seconds) >= self.most or (len(self.seconds) >= FEWEST and now - self.began > SECONDS)
        if world_size() > 1:
            votes = torch.tensor([float(over)], device=next(runner.model.parameters()).device)
            distributed.all_reduce(votes, distributed.ReduceOp.MAX)
            over = bool(votes.item())
        if over:
            raise Enough


def trial(cfg: Config, folder: Path) -> Config:
    """The config of a rehearsal: the same training, with its files in ``folder`` and nothing sent anywhere.

    Args:
        cfg: The config, as prepared for a run.
        folder: Where it writes.
    """
    changed = copy.deepcopy(cfg)
    object.__setattr__(changed, "_format_python_code", False)  # it takes seconds
    changed.work_dir, changed.experiment_name = str(folder), folder.name
    changed[LOGGERS] = []
    if "evaluation" in changed:
        changed.evaluation = None
    if "val_begin" in changed.train_cfg:
        changed.train_cfg.val_begin = NEVER
    hooks: Any = changed.get("default_hooks") or {}
    if hooks.get("checkpoint"):
        hooks.checkpoint.interval, hooks.checkpoint.save_last = NEVER, False
    if hooks.get("logger"):
        hooks.logger.interval = NEVER
    return changed


def rehearse(cfg: Config, folder: Path) -> list[Rehearsed]:
    """Make the first steps, and write and read a checkpoint.

    Args:
        cfg: The config, as prepared for a run.
        folder: That is thrown away, on the disk of the run.

    Returns:
        What each process found.

    Raises:
        UserError: A run would fail with this message.
        RuntimeError: Another error of PyTorch.
    """
    hook = RehearsalHook(MOST)

    def task(runner: Any) -> list[Rehearsed]:
        runner.register_hook(hook)
        with suppress(Enough):
            runner.train()
        loop = runner.train_loop
        found = Rehearsed(
            steps=len(hook.seconds),
            step_seconds=statistics.median(
                hook.seconds[-COUNTED:] if len(hook.seconds) > 2 else hook.seconds[-1:]
            ),
            peak=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_process_memory(),
            loss=hook.loss,
            iterations=loop.max_iters
            - loop.iter
            + len(hook.seconds)
            - 1,  # the last step was not counted yet
            per_epoch=getattr(loop, "iters_per_epoch", 0) or len(loop.dataloader),
            batch=getattr(loop, "per_process", 0) * getattr(loop, "accumulate", 1)
            or int(cfg.train_dataloader.batch_size),
        )
        if rank() == 0:
            found.checkpoint, found.write_seconds, found.read_seconds = write_and_read(runner)
        if world_size() == 1:
            return [found]
        everything: list[Any] = [None] * world_size()
        distributed.all_gather_object(everything, found)
        return everything

    with silent(folder / OUTPUT if rank() == 0 else Path(os.devnull)):
        result: list[Rehearsed] = run(trial(cfg, folder), task)
    return result


def write_and_read(runner: Any) -> tuple[int, float, float]:
    """Bytes of a checkpoint of a runner, and the seconds in which it is written and read.

    Raises:
        UserError: What is read is not what was written.
    """
    began = time.perf_counter()
    runner.save_checkpoint(runner.work_dir, "doctor.pth", meta={"epoch": 0, "iter": 0}, by_epoch=False)
    written = time.perf_counter()
    path = runner.files.checkpoint(runner.work_dir, "doctor.pth")
    state = load_checkpoint(path)["state_dict"]
    read = time.perf_counter()
    model: Any = unwrap(runner)
    for name, value in model.state_dict().items():
        if name not in state or not torch.equal(state[name], value.cpu()):
            raise UserError(
                f"a checkpoint was written to {path} and read back, and {name} is another one: the disk of the work "
                "directory cannot be trusted. Write elsewhere: --work-dir DIR"
            )
    return path.stat().st_size, written - began, read - written


@contextmanager
def silent(log: Path) -> Iterator[None]:
    """What the process and its children print goes into a file; a run prints its environment and its lines."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            with redirect_stdout(file), redirect_stderr(file):  # a notebook's are not the process's own
                yield
        finally:
            file.flush()
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)
