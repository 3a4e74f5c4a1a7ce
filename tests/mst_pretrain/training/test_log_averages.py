"""What a step's logging costs, and what it shows."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.training.runner import MSTRunner, build_runner

MakeConfig = Callable[..., Config]
LONG = 400_000


class Steps(Hook):
    """Keeps every step's losses; ``before`` runs when training begins, after the other hooks."""

    priority = "LOWEST"

    def __init__(self, before: Callable[[Any], None] = lambda runner: None) -> None:
        self.before, self.losses = before, []  # type: ignore[var-annotated]

    def before_train(self, runner: Any) -> None:
        self.before(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
        self.losses.append(float(outputs["loss_ce"]))


def train(cfg: Config, hook: Steps) -> MSTRunner:
    runner = build_runner(cfg)
    runner.register_hook(hook)
    runner.train()
    return runner  # type: ignore[return-value]


def saved_bytes(runner: MSTRunner) -> int:
    stream = io.BytesIO()
    torch.save(runner.message_hub.state_dict(), stream)
    return len(stream.getvalue())


def test_the_log_shows_averages_over_its_interval(toy_config: MakeConfig) -> None:
    """A line would show one step of many, or an average that earlier lines have shown already."""
    steps = Steps()
    cfg = toy_config(train_cfg__max_iters=6, default_hooks__logger={"type": "LoggerHook", "interval": 3})
    runner = train(cfg, steps)
    shown, _ = runner.log_processor.get_log_after_iter(runner, 5, "train")
    assert shown["loss_ce"] == pytest.approx(sum(steps.losses[3:]) / 3, rel=1e-5)
    assert len(steps.losses) == 6 and steps.losses[3] != steps.losses[4]


def test_a_loss_that_is_not_in_every_step_changes_no_other_average(toy_config: MakeConfig) -> None:
    """A detector whose mask loss is missing where an image has no object would log the average of a few steps."""

    class Sometimes(Hook):
        priority = 5  # before the averages

        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
            outputs["loss_ce"] = torch.tensor(float(runner.iter))
            if runner.iter % 3 == 0:
                outputs["extra"] = torch.tensor(10.0 + runner.iter)
            if runner.iter == 7:
                outputs["loss_rec"] = torch.tensor(float("nan"))

    cfg = toy_config(train_cfg__max_iters=10, default_hooks__logger={"type": "LoggerHook", "interval": 10})
    runner = build_runner(cfg)
    runner.register_hook(Sometimes())
    runner.train()
    shown, _ = runner.log_processor.get_log_after_iter(runner, 9, "train")
    assert shown["loss_ce"] == pytest.approx(7.0)  # steps 6 to 10: the fifth ended an epoch of the loader
    assert shown["extra"] == pytest.approx((16 + 19) / 2)
    assert math.isnan(shown["loss_rec"])  # the optimizer made that step: nobody may think that all is well


def test_histories_do_not_grow_with_the_run(toy_config: MakeConfig) -> None:
    """Each step of a long run would copy arrays of hundreds of thousands of numbers, each checkpoint hold them."""

    def after_many(runner: Any) -> None:
        for name in ("train/lr", "train/time", "train/data_time", "train/grad_norm", "train/loss"):
            runner.message_hub.log_scalars[name] = HistoryBuffer(np.ones(LONG), np.ones(LONG))

    options: dict[str, Any] = {"train_cfg__max_iters": 12, "log_processor__window_size": 5}
    fresh, long = train(toy_config(**options), Steps()), train(toy_config(**options), Steps(after_many))
    for runner in (fresh, long):
        lengths = {name: len(h.data[0]) for name, h in runner.message_hub.log_scalars.items()}
        assert {"train/loss_ce", "train/lr", "train/time", "train/grad_norm"} <= set(lengths)
        assert max(lengths.values()) == 5, lengths
    assert saved_bytes(long) == pytest.approx(saved_bytes(fresh), rel=0.05)
