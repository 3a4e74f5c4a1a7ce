"""What a validation leaves: its line, the best weights, a curve; and the lines of those that were before it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process

from ..runtime.run_files import BEST, CHECKPOINTS
from .best import Best
from .console import LINE
from .failing_saves import attempt
from .lines import eval_line
from .metrics_file import EVAL, MetricsFile
from .stages import begins_with_validation, epoch_of, validations_left

VALIDATION = "validation"  # the kind of pause


def continue_scores(runner: Any, file: MetricsFile, best: Best, begun: bool = True) -> None:
    """Cut what a killed run has written beyond the checkpoint; a validation that it did not end is made up.

    Args:
        runner: Before its first step; ``unvalidated`` is set where a validation is missing.
        file: Of the lines.
        best: Begins with the validations that are kept.
        begun: Whether a validation can only be missing where the file has a line.
    """
    best.start([])
    missing = False
    if is_main_process():
        first = runner.unvalidated or begins_with_validation(runner.train_loop)
        kept = file.cut(runner.iter, evaluated=not first)
        best.start([line for line in kept if line["stage"] == EVAL])
        ended = any(line["stage"] == EVAL and line["step"] == runner.iter for line in kept)
        left, before = (validations_left(runner.train_loop, step) for step in (runner.iter, runner.iter - 1))
        missing = bool(kept or not begun) and runner.iter > 0 and left < before and not (ended or first)
    found = [missing]
    broadcast_object_list(found)
    runner.unvalidated |= found[0]


def record_scores(
    runner: Any,
    file: MetricsFile,
    best: Best,
    scores: Mapping[str, float],
    metrics: Collection[str] = (),
    main: str = "",
) -> None:
    """Keep the best weights, then write the scores: killed in between, the validation is made up.

    Args:
        runner: After ``iter`` iterations; its first process alone.
        file: Gets a line.
        best: Which validation is the best so far.
        scores: By the names of a line.
        metrics: MMEngine's names of the scores.
        main: The score that decides, where none was named.
    """
    step, total = runner.iter, runner.max_iters
    before = (best.step, best.value)
    improved, saved = best.improves(step, scores, metrics, main), ""
    if improved:
        options = {"save_optimizer": False, "save_param_scheduler": False, "by_epoch": False}
        meta = {"epoch": runner.epoch, "iter": step}
        save = partial(runner.save_checkpoint, runner.work_dir, BEST, meta=meta, **options)
        improved = attempt(runner, step, save)
        if improved:
            saved = str(Path(CHECKPOINTS, BEST)) if runner.files.tidy else BEST
        else:  # best.pth is still the one of before
            best.step, best.value = before
    line = {"step": step, "total": total, "stage": EVAL, "epoch": epoch_of(runner.train_loop, step)}
    line |= {"time": time.time(), "main": best.name, **scores, "best": improved}
    file.add(line)
    runner.visualizer.add_scalars({f"eval/{name}": value for name, value in scores.items()}, step=step)
    text = eval_line(step, total, scores, best.words(), saved)
    runner.logger.info(text, extra={LINE: True})
