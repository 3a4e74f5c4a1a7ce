"""How long a step takes here: the dry run of the real training, which the doctor shows whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_pretrain.runtime.errors import UserError

from .findings import FAULT
from .plan import RunPlan

if TYPE_CHECKING:
    from mmengine.config import Config

HELD_BACK = 0.08  # of the hours, for validations, checkpoints and the start


def dry_run(config: Path, gpus: int, words: Sequence[str], quiet: bool = False) -> int:
    """``tools/train.py CONFIG --dry-run``, in a process of its own or one for each GPU.

    Args:
        config: Of MMEngine.
        gpus: Processes.
        words: Further arguments.
        quiet: Show its last lines only where it fails.

    Returns:
        Its exit code: 0 where nothing is wrong, 1 with faults, negative for a signal.
    """
    from .resources import child_environment, find_config
    from .training import run_child, training_command

    command = training_command([str(find_config(config)), "--dry-run", *words], gpus)
    return run_child(command, child_environment(Path(__file__).resolve().parents[1]), quiet)


def rehearsed(cfg: Config, gpus: int) -> dict[str, Any]:
    """The report of the dry run of a training config on this machine.

    Raises:
        UserError: It did not come to its end; its message is printed.
    """
    with tempfile.TemporaryDirectory(prefix="mst_") as temporary:
        folder = Path(temporary)
        plain = cfg.copy()
        object.__setattr__(plain, "_format_python_code", False)
        (folder / "config.py").write_text(plain.pretty_text)
        report = folder / "report.json"
        code = dry_run(
            folder / "config.py",
            gpus,
            ["--report", str(report), "--work-dir", str(folder / "run")],
            quiet=True,
        )
        if not report.is_file():
            raise UserError(f"the dry run of the training ended with code {code}; its message stands above.")
        return dict(json.loads(report.read_text()))


def seconds_per_step(cfg: Config, gpus: int) -> float:
    """Seconds of a step of a training config on this machine, with its images.

    Raises:
        UserError: The training does not run.
    """
    found = rehearsed(cfg, gpus)
    if "iteration_seconds" not in found["measured"]:
        raise UserError(next(line["text"] for line in found["lines"] if line["kind"] == FAULT))
    return float(found["measured"]["iteration_seconds"])


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
