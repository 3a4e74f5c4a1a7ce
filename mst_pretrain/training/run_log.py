"""A run folder's log: lines on the terminal, ``metrics.jsonl``, validations, the best checkpoint."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..runtime.environment import peak_memory
from ..runtime.run_files import LAST
from .best import Best
from .console import BAR, LINE, draw
from .health import HealthHook
from .lines import data_warning, scores_of, train_line
from .metrics_file import TRAIN, MetricsFile
from .pace import Interval
from .scores import VALIDATION, continue_scores, record_scores
from .stages import checkpoints_left, epoch_of, images_per_step, stage_of, validations_left

# Waiting for images is said where it took a larger share of the last intervals, which together took this many seconds
# or more; then not again for some intervals.
SLOW_DATA, LOOKED_AT, LONG, QUIET = 0.1, 5, 30.0, 100
REDRAW = 0.5  # seconds between two drawings of a bar
UNTOLD = (
    "time",
    "data_time",
    "lr",
    "base_lr",
    "loss",
)  # of the scalars, in a line under other names or not at all
TIMES = ("time", "images_per_second", "memory_gb", "eta_seconds", "data_share")  # differ from start to start


@HOOKS.register_module()
class RunLogHook(LoggerHook):
    """Takes the place of MMEngine's LoggerHook where the config has ``run_folder = True``.

    A line of ``metrics.jsonl`` after every ``interval`` iterations has ``step``, ``total``, ``stage`` ("train"),
    ``epoch`` (passes over the data, a fraction), ``time`` (seconds since 1970), ``loss`` and all its terms, all other
    scalars of the step, ``lr`` (the largest of the optimizer's), ``images_per_second``, ``memory_gb`` (GiB; of the
    process where there is no GPU), ``eta_seconds`` and ``data_share`` (0 to 1). After a validation ``stage`` is "eval",
    the scores are in per cent, ``main`` names the one that decides and ``best`` says whether it is the best so far.

    Args:
        save_best: The score that decides which checkpoint becomes ``best.pth``; None or ``auto``: the main one.
        rule: ``greater`` or ``less``; None: less of what has "loss" in its name.
        kwargs: MMEngine's, of which ``interval`` is used.

    Raises:
        UserError: ``save_best`` is not a score of the first validation.
    """

    def __init__(self, save_best: str | None = None, rule: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.best = Best(save_best, rule)
        self.recent: deque[Interval] = deque(maxlen=LOOKED_AT)
        self.lines, self.warned = 0, -QUIET
        self.counted = 0  # steps since the last line
        self.text, self.drawn = "", 0.0
        self.validation = ExitStack()

    def before_train(self, runner: Any) -> None:
        """Cut what a killed run has written beyond the checkpoint; a validation that it did not end is made up."""
        self.file, self.stage = MetricsFile(runner.files.metrics), stage_of(runner)
        continue_scores(runner, self.file, self.best)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The first interval begins with the first step: workers have started."""
        if self.lines == 0 and self.counted == 0:
            runner.pace.start()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """No checkpoint is ahead of the numbers."""
        if hasattr(self, "file"):
            self.file.to_disk()

    def is_due(self, runner: Any) -> bool:
        """Whether a line follows the present iteration."""
        done = runner.iter + 1
        return bool(done % self.interval == 0 or done == runner.max_iters)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Write a line where one is due; between two lines a terminal sees the steps count."""
        self.counted += 1
        if not is_main_process():
            return
        if not self.is_due(runner):
            self._draw(runner)
        else:
            values = self.values(runner)
            self.file.add(values)
            with runner.pace.pause("loggers"):
                runner.visualizer.add_scalars(_plotted(values), step=values["step"])
            on_gpu = torch.cuda.is_available()
            shown = values if on_gpu else {**values, "memory_gb": None}
            self.text = train_line(self.stage, shown, health_of(runner))
            share = values["step"] / max(values["total"], 1)
            runner.logger.info(self.text, extra={LINE: True, BAR: share})
            self._warn(runner)

    def _draw(self, runner: Any) -> None:
        """Between two lines a terminal sees the steps count."""
        now = time.monotonic()
        if now - self.drawn >= REDRAW:
            self.drawn = now
            step, total = runner.iter + 1, runner.max_iters
            draw(
                runner.logger, step / total, f"step {step:,}/{total:,}  last line: {self.text or 'none yet'}"
            )

    def values(self, runner: Any) -> dict[str, Any]:
        """One line's numbers."""
        loop, step = runner.train_loop, runner.iter + 1
        interval = runner.pace.end(self.counted)
        self.recent.append(interval)
        self.lines, self.counted = self.lines + 1, 0
        pauses = {VALIDATION: validations_left(loop, step), LAST: checkpoints_left(runner, step)}
        scalars = {
            name.removeprefix("train/"): float(history.current())
            for name, history in runner.message_hub.log_scalars.items()
            if name.startswith("train/")
        }
        return {
            "step": step,
            "total": runner.max_iters,
            "stage": TRAIN,
            "epoch": epoch_of(loop, step),
            "time": time.time(),
            "loss": scalars.get("loss"),
            **{name: value for name, value in scalars.items() if name not in UNTOLD},
            "lr": max(group["lr"] for group in runner.optim_wrapper.optimizer.param_groups),
            "images_per_second": interval.steps * images_per_step(loop) / interval.seconds,
            "memory_gb": peak_memory(),
            "eta_seconds": runner.pace.remaining(runner.max_iters - step, pauses),
            "data_share": interval.data_share,
        }

    def _warn(self, runner: Any) -> None:
        """Say it where the last intervals together waited too long, and again only much later."""
        seconds = sum(interval.seconds for interval in self.recent)
        waited = sum(interval.seconds * interval.data_share for interval in self.recent)
        told = self.lines - self.warned < QUIET
        if len(self.recent) == LOOKED_AT and seconds >= LONG and waited > SLOW_DATA * seconds and not told:
            self.warned = self.lines
            runner.logger.warning(data_warning(waited / seconds, runner.train_dataloader.num_workers))

    def before_val(self, runner: Any) -> None:
        """A validation is not training."""
        self.validation.enter_context(runner.pace.pause(VALIDATION))

    def after_val(self, runner: Any) -> None:
        """Training goes on."""
        self.validation.close()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A terminal sees how far a validation is."""
        batches, now = len(runner.val_dataloader), time.monotonic()
        if now - self.drawn >= REDRAW and batch_idx + 1 < batches:
            self.drawn = now
            text = f"eval {batch_idx + 1:,}/{batches:,} after {self.text}"
            draw(runner.logger, (batch_idx + 1) / batches, text)

    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        """Keep the best weights, then write the scores: killed in between, the validation is made up."""
        if not hasattr(self, "file"):  # a validation alone
            super().after_val_epoch(runner, metrics)
            return
        if not is_main_process():
            return
        record_scores(runner, self.file, self.best, scores_of(metrics or {}), list(metrics or {}))


def health_of(runner: Any) -> str:
    """How a pretraining is, in words; nothing of other trainings."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, HealthHook)), None)
    if hook is None:
        return ""
    if hook.collapsed_iters:
        return f"collapsed for {hook.collapsed_iters:,} steps"
    return f"{hook.skipped} steps skipped" if hook.skipped else "healthy"


def _plotted(values: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line that make a curve."""
    kept = {name: value for name, value in values.items() if isinstance(value, float) and name != "time"}
    return {f"train/{name}": value for name, value in kept.items()}
