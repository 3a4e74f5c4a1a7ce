"""What the log shows, at a cost that does not grow with the run: sums on the device, short histories on the host."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..runtime.errors import UserError
from .schedule_and_teacher import broken_weight, last_good


@HOOKS.register_module()
class LogAveragesHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook that hands the logger one average per interval instead of every value of every step.

    MMEngine copies each scalar of each step to the host, which waits for the device, and appends it to an array that
    is copied and saved whole: after 300,000 steps both cost milliseconds a step and 64 MB a checkpoint. Here the
    outputs of the steps since the last log line are summed where they are, and every history under ``train/`` keeps
    only as many values as the log processor averages over. A step that the optimizer left out, because its gradients
    were not finite, does not count; an average that is not finite ends the run.
    """

    def __init__(self) -> None:
        # by the names of a step's outputs: their sums, and the number of steps
        self.sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}
        self.was_finite = True  # the loss, at the last line

    def before_train(self, runner: Runner) -> None:
        """Find the logger whose lines the averages are for; cut the histories of an older checkpoint."""
        super().before_train(runner)
        self.loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._cut_histories(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the sums: the next line of a resumed run is that of the uninterrupted one."""
        checkpoint["log_sums"] = [(names, total.cpu(), steps) for names, (total, steps) in self.sums.items()]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on adding."""
        if runner._resume:
            device = next(runner.model.parameters()).device
            for names, total, steps in checkpoint.get("log_sums", []):
                self.sums[tuple(names)] = total.to(device), steps

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Add this step's outputs; before a log line, hand over their averages."""
        if outputs and not getattr(runner.optim_wrapper, "skipped", False):
            self._add(outputs)
        if any(is_due(logger, runner, batch_idx) for logger in self.loggers):
            self._hand_over(runner)
            self._cut_histories(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """The log shows the times of one validation; those of the validations before are dropped."""
        for name in ("val/time", "val/data_time"):
            runner.message_hub.log_scalars.pop(name, None)

    def _add(self, outputs: dict[str, Any]) -> None:
        values = [torch.as_tensor(value).detach().float().reshape(()) for value in outputs.values()]
        device = next((value.device for value in values if value.device.type != "cpu"), None)
        step = torch.stack([value if device is None else value.to(device) for value in values])
        names = tuple(outputs)
        total, steps = self.sums.get(names, (torch.zeros_like(step), 0))
        self.sums[names] = total + step, steps + 1

    def _hand_over(self, runner: Runner) -> None:
        """One copy from the device for the outputs of steps with equal names."""
        totals: dict[str, tuple[float, int]] = {}
        for names, (sums, steps) in self.sums.items():
            for name, total in zip((f"train/{name}" for name in names), sums.tolist(), strict=True):
                before = totals.get(name, (0.0, 0))
                totals[name] = before[0] + total, before[1] + steps
        finite = math.isfinite(totals.get("train/loss", (0.0, 0))[0])
        if not finite:
            self._judge(runner)
        self.was_finite = finite
        scalars = runner.message_hub.log_scalars
        for name, (total, steps) in totals.items():
            runner.message_hub.update_scalar(name, total / steps)
            scalars[name] = HistoryBuffer([total / steps], [1])
        for name in [name for name in scalars if name not in totals]:  # the line begins with the losses
            scalars.move_to_end(name)
        self.sums = {}

    def _judge(self, runner: Runner) -> None:
        """End a run whose loss is not finite; where a loss scale has saved the weights from it, the second time."""
        broken = broken_weight(runner)
        if broken or not self.was_finite or not hasattr(runner.optim_wrapper, "loss_scaler"):
            weights = f", and neither is {broken}" if broken else ""
            raise UserError(
                f"The loss is not finite, at step {runner.iter + 1} or since the last line of the log{weights}. "
                f"{last_good(runner)} Lower optim_wrapper.optimizer.lr or lengthen its warm-up in param_scheduler, "
                "then continue with --resume, or start again."
            )

    def _cut_histories(self, runner: Runner) -> None:
        processor: Any = runner.log_processor
        windows = [processor.window_size, *(entry.get("window_size", 1) for entry in processor.custom_cfg)]
        length = max(window for window in windows if isinstance(window, int))
        scalars = runner.message_hub.log_scalars
        for name, history in scalars.items():
            if name.startswith("train/") and history.max_length != length:
                values, counts = history.data
                scalars[name] = HistoryBuffer(values[-length:], counts[-length:], length)


def is_due(logger: LoggerHook, runner: Runner, batch_idx: int) -> bool:
    """Whether a logger writes a line after this iteration [code: MMEngine, LoggerHook.after_train_iter]."""
    loader = runner.train_dataloader
    shown = not logger.ignore_last or len(loader) <= logger.interval
    if hasattr(logger, "is_due"):
        return bool(logger.is_due(runner))
    last = logger.end_of_epoch(loader, batch_idx) and shown
    return last or logger.every_n_inner_iters(batch_idx, logger.interval)
