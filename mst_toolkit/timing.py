"""How long a step takes here: a few steps of the real training, in a folder that is thrown away."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from mst_pretrain.runtime.errors import UserError

from .plan import RunPlan

if TYPE_CHECKING:
    from mmengine.config import Config

STEPS = 8
COUNTED = 5  # the last ones: the first wait for kernels and workers
HELD_BACK = 0.08  # of the hours, for validations, checkpoints and the start


def seconds_per_step(cfg: Config, gpus: int) -> float:
    """Median seconds of a step of a training config on this machine.

    Raises:
        UserError: The training does not run; its message is printed.
    """
    from .training import launch

    with tempfile.TemporaryDirectory(prefix="mst_") as temporary:
        folder = Path(temporary)
        trial = cfg.copy()
        object.__setattr__(trial, "_format_python_code", False)
        trial.train_cfg.max_iters = STEPS
        if "evaluation" in trial:
            trial.evaluation = None
        if "val_begin" in trial.train_cfg:
            trial.train_cfg.val_begin = 10 * STEPS
        trial.default_hooks.logger.interval = 1
        trial.default_hooks.checkpoint.interval = 10 * STEPS
        trial.default_hooks.checkpoint.save_last = False
        (folder / "config.py").write_text(trial.pretty_text)
        launch(folder, gpus, resume=False, quiet=True)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    times = [entry["time"] for entry in map(json.loads, lines) if entry.get("stage") == "train"]
    steps = [after - before for before, after in pairwise(times)]
    if not steps:
        raise UserError("no step could be timed: the training wrote no times.")
    return median(steps[-COUNTED:])


def in_hours(
    make: Callable[..., tuple[RunPlan, Config]], hours: float | None, gpus: int
) -> tuple[RunPlan, Config]:
    """A plan whose length fits into the hours asked for, from a few timed steps; without hours as it is.

    Args:
        make: Makes plan and config; ``in_hours`` is a number of steps, and why.
        hours: Asked for.
        gpus: Processes.
    """
    if hours is None:
        return make()
    print("Plan    timing a few steps for --hours", flush=True)
    _, cfg = make(in_hours=(1000, "trial"))
    seconds = seconds_per_step(cfg, gpus)
    steps = max(1, int(hours * 3600 * (1 - HELD_BACK) / seconds))
    return make(in_hours=(steps, f"--hours {hours:g}: a step takes {seconds:.3g} s here"))
