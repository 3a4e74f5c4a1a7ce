"""Going on with a run: from which checkpoint, after a restart by itself, and with another number of processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process

from ..checkpoints.storage import load_checkpoint, refuse_folder
from ..checkpoints.whole import newest_whole, resumable
from ..runtime.errors import UserError
from ..runtime.run_files import SWITCH, newest_checkpoint
from .resume import recorded

# How often this job was started again by what started it: torchrun --max-restarts, Slurm's requeue
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def restarts() -> int:
    """How often torchrun or Slurm has started this job again."""
    given = (os.environ.get(name, "") for name in RESTARTS)
    return max(int(text) if text.isdecimal() else 0 for text in given)


def choose(cfg: Config, source: str | None) -> None:
    """Put the checkpoint to go on from into a config.

    Only the first process reads a file through to see whether it is whole; :func:`settle` tells the others.

    Args:
        cfg: The config, with its ``work_dir``.
        source: A file; ``auto`` for the newest whole checkpoint of the work directory, if there is one; None for a new
            run. A job that was started again goes on from its newest checkpoint whatever is given.

    Raises:
        UserError: The file is not there, or ``auto`` finds damaged files only.
    """
    again = restarts() > 0
    if source is None and not again:
        return
    tidy = cfg.get(SWITCH) is True
    found = None
    if again or source == "auto":
        seen = resumable(cfg.work_dir, tidy)
        found = newest_whole(cfg.work_dir, tidy) if first_process() else next(seen, None)
    if found is None and source not in (None, "auto"):
        found = Path(str(source))
        if not found.is_file():
            refuse_folder(found)
            raise UserError(f"--resume {found} does not exist. Give a checkpoint of this config's run.")
    if found is not None:
        cfg.resume, cfg.load_from = True, str(found)
    elif first_process():
        place = newest_checkpoint(cfg.work_dir, tidy)
        print(f"--resume: no {place} yet, starting from the beginning", flush=True)


def first_process() -> bool:
    """Whether this is the first process, before they have met."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Share:
    """How the images of one optimizer step are shared.

    Attributes:
        processes: Their number.
        images: That each takes at once.
        accumulated: Times that it does so for a step.
    """

    processes: int
    images: int
    accumulated: int

    @property
    def batch(self) -> int:
        """Images of the step."""
        return self.processes * self.images * self.accumulated

    def __str__(self) -> str:
        return f"{self.processes} (processes) x {self.images} (images) x {self.accumulated} (accumulated)"


def settle(cfg: Config) -> None:
    """All processes go on from the first one's checkpoint, with as many images in a step as the run had before.

    To be called once they have met. Where their number is another one than at the run's start, ``batch_size`` and, in a
    pretraining, ``accumulate`` are set so that the step stays, and a line says what is different from there on.
    """
    if get_world_size() > 1:
        chosen = [(bool(cfg.get("resume")), cfg.get("load_from"))]
        broadcast_object_list(chosen)
        cfg.resume, cfg.load_from = chosen[0]
    if not (cfg.get("resume") and cfg.get("load_from")):
        return
    before = [began_with(recorded(load_checkpoint(cfg.load_from))) if is_main_process() else None]
    if get_world_size() > 1:
        broadcast_object_list(before)
    began = before[0]
    if began is None or began.processes == get_world_size() or not cfg.get("train_dataloader"):
        return
    pretraining = (cfg.get("train_cfg") or {}).get("type") == "PretrainLoop"
    given = shared(cfg._cfg_dict.to_dict(), get_world_size())
    now = given if given.batch == began.batch else fitting(began, given, pretraining)
    if now is None:
        return  # refused with its reasons once the run is built
    cfg.train_dataloader.batch_size = now.images
    if pretraining:
        cfg.train_cfg.accumulate = now.accumulated
    if is_main_process():
        print(what_changes(cfg, began, now), flush=True)


def shared(config: dict[str, Any], processes: int) -> Share:
    """How a config shares a step between processes."""
    loop, wrapper = config.get("train_cfg") or {}, config.get("optim_wrapper") or {}
    accumulated = loop.get("accumulate") or wrapper.get("accumulative_counts") or 1
    return Share(processes, int(config["train_dataloader"]["batch_size"]), int(accumulated))


def began_with(run: dict[str, Any]) -> Share | None:
    """How the first start of a run shared its step; None where its checkpoint does not tell."""
    batch, images, config = run.get("batch"), run.get("per_process"), run.get("config") or {}
    if not batch or not images or "train_dataloader" not in config:
        return None
    accumulated = shared(config, 1).accumulated
    return Share(batch // (images * accumulated), images, accumulated)


def fitting(began: Share, given: Share, accumulates: bool) -> Share | None:
    """The share of so many processes whose step has the images that the run began with; None if there is none.

    A process takes at most the images at once that it took before, as far as it may accumulate.

    Args:
        began: Of the run's first start.
        given: Of the config, for the present number of processes.
        accumulates: Whether more micro-batches may be accumulated; else a process takes more images at once.
    """
    each, rest = divmod(began.batch, given.processes)
    if rest:
        return None
    if not accumulates:
        images, rest = divmod(each, given.accumulated)
        return None if rest else Share(given.processes, images, given.accumulated)
    images = next(size for size in range(min(began.images, each), 0, -1) if each % size == 0)
    return Share(given.processes, images, each // images)


def what_changes(cfg: Config, began: Share, now: Share) -> str:
    """What is different from here on in a run that goes on with another number of processes."""
    model = cfg.get("model") or {}
    drawn = "drop path and dropout draw other numbers"
    parts = ["sums of floating-point numbers have another order", drawn]
    head, decoder = model.get("head") or {}, model.get("decoder")
    norms = decoder is not None or "bn" in str(head.get("norm")) or "train_cfg" in model
    if norms and now.images != began.images:
        parts.append(
            f"batch norm that is not synchronised sees {now.images} images instead of {began.images}"
        )
    return (
        f"This run began with {began} = {began.batch} images a step and goes on with {now} = {now.batch}. Every step "
        f"has the same images, augmented alike. Different from here on: {'; '.join(parts)}."
    )
