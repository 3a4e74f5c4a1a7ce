"""Places inside a training at which it sends itself a signal; a config imports this module and adds ``KillHook``.

``MST_TEST_KILL=PHASE:STEP:SIGNAL`` says where: the signal is sent once, at the first such place in or after that step,
and a line says so. Nothing else of the training is changed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mst_pretrain.method.losses import SelfDistillationLoss
from mst_pretrain.method.mst import MST
from mst_pretrain.training import feature_watch
from mst_pretrain.training.runner import MSTRunner
from tests.qa.kill_in_phases import BEGINNINGS, VARIABLE


class Kill:
    """The signal that is still to be sent.

    Attributes:
        step: The step that the training is in, from 1; 0 before the first.
    """

    def __init__(self, text: str) -> None:
        phase, step, name = text.split(":") if text else ("", "0", "SIGKILL")
        self.phase, self.wanted, self.number = phase, int(step), signal.Signals[name]
        self.step = 0

    def due(self, phase: str, step: int) -> bool:
        """Whether this is the place."""
        return phase == self.phase and step >= self.wanted

    def at(self, phase: str, step: int | None = None, where: str = "") -> None:
        """Send the signal to this process if this is the place."""
        step = self.step if step is None else step
        if self.due(phase, step):
            self.phase = ""
            told = f"\nphase {phase}, {where or f'step {step}'}: {self.number.name}\n"
            os.write(1, told.encode())
            os.kill(os.getpid(), self.number)


KILL = Kill(os.environ.get(VARIABLE, ""))


def before(owner: Any, name: str, phase: str) -> None:
    """The place is before a function."""
    function = vars(owner)[name]

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        KILL.at(phase, KILL.step + 1 if phase == "data" else None)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, phase: str, place: Callable[[], int | None] = lambda: None) -> None:
    """The place is behind a function."""
    function = vars(owner)[name]

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        KILL.at(phase, place())
        return result

    setattr(owner, name, wrapped)


def begins(owner: Any, name: str, number: int, behind: bool) -> None:
    """One of the places of the phase start."""
    function = vars(owner)[name]

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs) if behind else None
        if KILL.phase == "start" and KILL.wanted == number:
            KILL.at("start", number, BEGINNINGS[number])
        return result if behind else function(*args, **kwargs)

    setattr(owner, name, wrapped)


def put_half(backend: Any, obj: bytes, path: str) -> None:
    """The place is in the middle of a checkpoint's bytes."""
    if KILL.due("checkpoint write", KILL.step):
        with open(path, "wb") as file:
            file.write(obj[: len(obj) // 2])
        KILL.at("checkpoint write")
    whole_put(backend, obj, path)


def step_in_parts(optimizer: Any) -> None:
    """The place is between two groups of parameters, of which the first has made its step."""
    step = optimizer.step

    @wraps(step)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not KILL.due("optimizer", KILL.step):
            return step(*args, **kwargs)
        groups = optimizer.param_groups
        optimizer.param_groups = groups[:1]
        step(*args, **kwargs)
        KILL.at("optimizer")
        optimizer.param_groups = groups[1:]
        result = step(*args, **kwargs)
        optimizer.param_groups = groups
        return result

    optimizer.step = wrapped


@HOOKS.register_module()
class KillHook(Hook):
    """Counts the steps, and finds what only a built training has: its optimizer and its parameters."""

    priority = "HIGHEST"

    def before_train(self, runner: Any) -> None:
        """Wrap the optimizer; the place in the backward pass is the gradient of the last of the student's blocks."""
        step_in_parts(runner.optim_wrapper.optimizer)
        last = next(runner.model.student.backbone.blocks[-1].parameters())
        last.register_hook(lambda gradient: KILL.at("backward"))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """A step begins."""
        KILL.step = runner.iter + 1


begins(MSTRunner, "train", 0, behind=False)
begins(MSTRunner, "load_or_resume", 1, behind=True)
begins(MSTRunner, "save_checkpoint", 2, behind=True)
before(_MultiProcessingDataLoaderIter, "_next_data", "data")
before(MST, "forward_local", "forward")
before(SelfDistillationLoss, "update_center", "teacher")  # the teacher has moved, its centre has not
after(os, "link", "link")  # the new name is beside latest.pth, and not yet in its place
after(feature_watch, "extract_features", "evaluation")  # with the features of a part of the images
whole_put = LocalBackend.put
LocalBackend.put = put_half
