"""What happens around an iteration: schedules and the teacher's step. Health is in health.py."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..runtime.errors import UserError
from .schedules import CosineSchedule, WarmupThenConstant


def unwrap(runner: Runner) -> Any:
    """The model itself, whether or not it is wrapped for several processes."""
    return getattr(runner.model, "module", runner.model)


def broken_weight(runner: Runner) -> str | None:
    """The first weight or buffer of the model that is not finite."""
    state = unwrap(runner).state_dict()
    return next((name for name, value in state.items() if not torch.isfinite(value).all()), None)


def last_good(runner: Any) -> str:
    """Which checkpoint a run goes back to that has lost its weights."""
    latest, initial = runner.files.latest, runner.files.initial
    if latest.exists():
        return f"The last checkpoint stays: {latest}."
    before = f"; {initial} has the weights before training" if initial.exists() else ""
    return f"No checkpoint was due yet{before}."


@HOOKS.register_module()
class ScheduleHook(Hook):
    """Sets every scheduled value from the iteration, before it runs [code: DINO]. Durations are in epochs.

    Args:
        base_lr: Learning rate for ``base_batch`` images; scaled linearly to the actual global batch.
        base_batch: Images per step that ``base_lr`` is meant for.
        final_lr: Learning rate at the end (not scaled).
        warmup_epochs: Learning rate warm-up from 0.
        weight_decay: (start, end), cosine; groups without decay stay at 0.
        momentum: (start, end) of the teacher, cosine.
        teacher_temperature: (start, end), in equal steps, one an epoch, over ``teacher_temperature_epochs``.
        teacher_temperature_epochs: Length of that warm-up. It is made of whole epochs: a fraction is rounded up, and
            a run that is shorter (its last epoch may be cut) warms up to its end. 0: no warm-up.
        freeze_last_layer_epochs: The student's prototypes do not move for so long.
    """

    priority = "HIGHEST"  # before the hook that logs the learning rate

    def __init__(
        self,
        base_lr: float = 5e-4,
        base_batch: int = 256,
        final_lr: float = 1e-6,
        warmup_epochs: float = 10,
        weight_decay: tuple[float, float] = (0.04, 0.4),
        momentum: tuple[float, float] = (0.996, 1.0),
        teacher_temperature: tuple[float, float] = (0.04, 0.04),
        teacher_temperature_epochs: float = 0,
        freeze_last_layer_epochs: float = 1,
    ) -> None:
        self.base_lr, self.base_batch, self.final_lr = base_lr, base_batch, final_lr
        self.warmup_epochs = warmup_epochs
        self.weight_decay, self.momentum = weight_decay, momentum
        self.teacher_temperature = teacher_temperature
        self.teacher_temperature_epochs = teacher_temperature_epochs
        self.freeze_last_layer_epochs = freeze_last_layer_epochs

    def before_train(self, runner: Runner) -> None:
        """Fix all schedules once the loop's length and the global batch are known."""
        loop: Any = runner.train_loop
        total, per_epoch = max(loop.schedule_iters, 1), loop.iters_per_epoch

        def iterations(epochs: float) -> int:
            return min(int(epochs * per_epoch), total)

        lr = self.base_lr * loop.global_batch / self.base_batch
        self.lr_schedule = CosineSchedule(lr, self.final_lr, total, iterations(self.warmup_epochs))
        self.weight_decay_schedule = CosineSchedule(*self.weight_decay, total)
        self.momentum_schedule = CosineSchedule(*self.momentum, total)
        warmup = math.ceil(min(self.teacher_temperature_epochs, total / per_epoch))
        self.temperature_schedule = WarmupThenConstant(*self.teacher_temperature, warmup, per_epoch)
        self.frozen_iters = iterations(self.freeze_last_layer_epochs)
        runner.logger.info(
            f"Schedules span {total} iterations ({per_epoch} per epoch); learning rate {lr:.3g} = "
            f"{self.base_lr:.3g} x {loop.global_batch} / {self.base_batch}."
        )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Apply the values of this iteration."""
        iteration, model, wrapper = runner.iter, unwrap(runner), runner.optim_wrapper
        for group in wrapper.optimizer.param_groups:
            group["lr"] = self.lr_schedule(iteration)
            group["weight_decay"] = self.weight_decay_schedule(iteration) if group["decays"] else 0.0
        model.teacher_temperature = self.temperature_schedule(iteration)
        last_layer = model.student.head.last_layer
        wrapper.frozen = list(last_layer.parameters()) if iteration < self.frozen_iters else []


@HOOKS.register_module()
class TeacherHook(Hook):
    """Teacher and centre follow once per optimizer step, and stay where the step was skipped."""

    priority = "HIGH"

    def before_train(self, runner: Runner) -> None:
        """Find the schedule of the momentum."""
        schedules = [hook for hook in runner.hooks if isinstance(hook, ScheduleHook)]
        if not schedules:
            raise UserError(
                "TeacherHook needs a ScheduleHook: add schedule=dict(type='ScheduleHook') to default_hooks."
            )
        self.schedule = schedules[0]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Move the teacher unless the step was skipped; log what the model itself does not know."""
        momentum = self.schedule.momentum_schedule(runner.iter)
        model = unwrap(runner)
        if runner.optim_wrapper.skipped:
            model.distillation.discard()
        else:
            model.update_teacher(momentum)
        scalars = {
            "grad_norm": runner.optim_wrapper.grad_norm,
            "momentum": momentum,
            "teacher_temperature": model.teacher_temperature,
        }
        runner.message_hub.update_scalars({f"train/{name}": value for name, value in scalars.items()})


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Does nothing: earlier configs name it, and now every run resumes exactly."""
