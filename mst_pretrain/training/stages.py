"""What a training loop tells of its stage: name, images of a step, what is still to come."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook

TITLES = {"mmdet": "detection", "mmseg": "segmentation"}  # by the scope of the config


def stage_of(runner: Any) -> str:
    """``pretrain``, ``detection`` or ``segmentation``; of other models ``training``."""
    if hasattr(runner.train_loop, "schedule_iters"):
        return "pretrain"
    return TITLES.get(str(runner.cfg.get("default_scope")), "training")


def images_per_step(loop: Any) -> int:
    """Images of one iteration, of all processes."""
    if hasattr(loop, "schedule_iters"):  # the pretraining loop's iteration is an optimizer step
        return int(loop.global_batch)
    return int(getattr(loop, "per_process", None) or loop.dataloader.batch_size or 1) * get_world_size()


def epoch_of(loop: Any, step: int) -> float:
    """Passes over the data after this many iterations."""
    length = getattr(loop, "iters_per_epoch", None) or len(loop.dataloader)
    return round(step / max(length, 1), 4)


def validations_left(loop: Any, step: int) -> int:
    """Validations after the iterations that follow ``step``, to the end of the run."""
    if hasattr(loop, "measurements_left"):
        return int(loop.measurements_left(step))
    if getattr(loop.runner, "val_loop", None) is None or not hasattr(loop, "val_interval"):
        return 0
    done, length, end = step, 1, loop.max_iters
    if getattr(loop, "_max_epochs", 1) > 1 or hasattr(
        loop, "full_iters"
    ):  # counted in epochs, the last whole
        length = len(loop.dataloader)
        done, end = step // length, loop.max_iters // length
        last = loop._max_epochs
    else:
        last = loop.max_iters
    first = max(done, loop.val_begin - 1)  # the last that has none
    by_interval = end // loop.val_interval - first // loop.val_interval if end > first else 0
    extra = last == end > first and end % loop.val_interval != 0
    return by_interval + int(extra)


def begins_with_validation(loop: Any) -> bool:
    """Whether a resumed loop ends an epoch first: its checkpoint is of the last iteration, before the validation."""
    if not hasattr(loop, "full_iters") or loop.iter == 0:
        return False
    return bool(loop.iter == (loop.epoch + 1) * len(loop.dataloader))


def checkpoints_left(runner: Any, step: int) -> int:
    """Checkpoints that are due after the iterations that follow ``step``."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if hook is None or hook.interval <= 0:
        return 0
    every = hook.interval * (len(runner.train_loop.dataloader) if hook.by_epoch else 1)
    return int(runner.max_iters // every - step // every)
