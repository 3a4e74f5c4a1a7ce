"""Every scheduled value of a run, compared with DINO's arrays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS
from torch import nn

from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.optim import MSTOptimWrapperConstructor
from mst_pretrain.training.schedule_and_teacher import ScheduleHook, TeacherHook
from mst_pretrain.training.schedules import CosineSchedule, WarmupThenConstant

CONFIGS = Path(__file__).parents[3] / "configs/pretrain"


def cosine_array(
    base: float, final: float, epochs: int, per_epoch: int, warmup_epochs: float = 0
) -> np.ndarray:
    """DINO's cosine_scheduler: linspace, then half a cosine, one value per iteration."""
    warmup = int(warmup_epochs * per_epoch)
    steps = np.arange(epochs * per_epoch - warmup)
    tail = final + 0.5 * (base - final) * (1 + np.cos(np.pi * steps / len(steps)))
    return np.concatenate([np.linspace(0.0, base, warmup), tail])


@pytest.mark.parametrize("warmup", [0, 1, 2, 35, 2100])
@pytest.mark.parametrize(("base", "final"), [(2e-3, 1e-6), (0.04, 0.4), (0.996, 1.0)])
def test_cosine_is_dinos_array(warmup: int, base: float, final: float) -> None:
    """A 300-epoch run would follow another curve at some iteration."""
    schedule = CosineSchedule(base, final, 300 * 7, warmup)
    expected = cosine_array(base, final, 300, 7, warmup / 7)
    got = np.array([schedule(iteration) for iteration in range(2100)])
    assert len(expected) == 2100
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def dinos_temperatures(start: float, final: float, warmup: int, epochs: int, per_epoch: int) -> np.ndarray:
    """DINO's array has one value per epoch; here it is one per iteration."""
    by_epoch = np.concatenate((np.linspace(start, final, warmup), np.ones(epochs - warmup) * final))
    return np.array([by_epoch[iteration // per_epoch] for iteration in range(epochs * per_epoch)])


@pytest.mark.parametrize("per_epoch", [1, 7])
@pytest.mark.parametrize("warmup", [0, 1, 2, 30])
def test_temperature_is_dinos_array(warmup: int, per_epoch: int) -> None:
    """The teacher's temperature would not start, rise or stay as DINO's, or rise inside an epoch."""
    schedule = WarmupThenConstant(0.04, 0.07, warmup, per_epoch)
    expected = dinos_temperatures(0.04, 0.07, warmup, 50, per_epoch)
    got = [schedule(iteration) for iteration in range(50 * per_epoch)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert len(set(got)) == (warmup or 1) + (warmup == 1)  # one value at most for each epoch


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (10, 11), (10, -1)])
def test_impossible_lengths_are_refused(total: int, warmup: int) -> None:
    """A run shorter than its warm-up would never reach its learning rate."""
    with pytest.raises(ValueError, match=str(warmup)):
        CosineSchedule(1.0, 0.0, total, warmup)


def runner_of(per_epoch: int, epochs: int, global_batch: int) -> Any:
    """What a hook sees of a runner, with a real model and optimizer."""
    tiny = dict(name="vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1)
    model = MST(tiny, dict(prototypes=4, hidden_dim=4, bottleneck_dim=4, norm_last_layer=False))
    wrapper = MSTOptimWrapperConstructor({"type": "MSTOptimWrapper", "optimizer": {"type": "AdamW"}})(model)
    loop = SimpleNamespace(
        schedule_iters=epochs * per_epoch, iters_per_epoch=per_epoch, global_batch=global_batch
    )
    logger = SimpleNamespace(info=lambda text: None)
    return SimpleNamespace(
        model=model, optim_wrapper=wrapper, train_loop=loop, logger=logger, iter=0, hooks=[]
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_every_value_of_a_300_epoch_run(wrapped: bool) -> None:
    """Learning rate, weight decay (0 stays 0), temperature, momentum or freezing would leave the recipe."""
    runner, per_epoch = runner_of(5, 300, 1024), 5
    model = runner.model
    if wrapped:
        runner.model = nn.Module()
        runner.model.module = model
    hook = ScheduleHook(teacher_temperature=(0.04, 0.07), teacher_temperature_epochs=30)
    hook.before_train(runner)
    lr = cosine_array(5e-4 * 1024 / 256, 1e-6, 300, per_epoch, 10)
    decay = cosine_array(0.04, 0.4, 300, per_epoch)
    momentum = cosine_array(0.996, 1.0, 300, per_epoch)
    temperature = dinos_temperatures(0.04, 0.07, 30, 300, per_epoch)
    last_layer = list(model.student.head.last_layer.parameters())
    groups = runner.optim_wrapper.optimizer.param_groups
    assert [group["decays"] for group in groups] == [True, False]
    for runner.iter in range(1500):
        hook.before_train_iter(runner, runner.iter)
        got = [groups[0]["lr"], groups[1]["lr"], groups[0]["weight_decay"], groups[1]["weight_decay"]]
        got += [model.teacher_temperature, hook.momentum_schedule(runner.iter)]
        i = runner.iter
        assert got == pytest.approx([lr[i], lr[i], decay[i], 0.0, temperature[i], momentum[i]], rel=1e-12)
        frozen = runner.optim_wrapper.frozen
        assert len(frozen) == (2 if i < 5 else 0)
        assert all(a is b for a, b in zip(frozen, last_layer, strict=False))


@pytest.mark.parametrize(
    ("name", "gpus", "epochs", "per_epoch", "peak", "hot", "hot_epochs"),
    [
        ("mst_deit-s_8xb128-300e_in1k", 8, 300, 1251, 2e-3, 0.07, 30),
        ("mst_swin-t_8xb64-100e_in1k", 8, 100, 2502, 1e-3, 0.04, 0),
    ],
)
def test_every_value_of_the_shipped_runs(
    name: str, gpus: int, epochs: int, per_epoch: int, peak: float, hot: float, hot_epochs: int
) -> None:
    """One of the 375,300 or 250,200 iterations on ImageNet would leave the recipe, or a bias or norm decay in one."""
    cfg = load_config(CONFIGS / f"{name}.py")
    batch = cfg.train_dataloader.batch_size * gpus
    assert (1_281_167 // batch, cfg.train_cfg.max_epochs) == (per_epoch, epochs)
    runner, total = runner_of(per_epoch, epochs, batch), epochs * per_epoch
    hook = HOOKS.build(cfg.default_hooks.schedule)
    hook.before_train(runner)
    decayed, plain = runner.optim_wrapper.optimizer.param_groups
    got = np.empty((6, total))
    frozen = np.empty(total, dtype=int)
    for runner.iter in range(total):
        hook.before_train_iter(runner, runner.iter)
        got[:4, runner.iter] = decayed["lr"], plain["lr"], decayed["weight_decay"], plain["weight_decay"]
        got[4:, runner.iter] = runner.model.teacher_temperature, hook.momentum_schedule(runner.iter)
        frozen[runner.iter] = len(runner.optim_wrapper.frozen)
    i = np.arange(total)
    lr = 1e-6 + (peak - 1e-6) * (1 + np.cos(np.pi * (i - 10 * per_epoch) / (total - 10 * per_epoch))) / 2
    lr[: 10 * per_epoch] = peak * i[: 10 * per_epoch] / (10 * per_epoch - 1)
    epoch = np.minimum(i // per_epoch, max(hot_epochs - 1, 0))
    temperature = 0.04 + (hot - 0.04) * epoch / max(hot_epochs - 1, 1)
    falling = (1 + np.cos(np.pi * i / total)) / 2
    decay = 0.4 - 0.36 * falling
    expected = np.stack([lr, lr, decay, np.zeros(total), temperature, 1 - 0.004 * falling])
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-18)
    assert not got[3].any() and (frozen == np.where(i < per_epoch, 2, 0)).all()


def test_short_runs_are_all_warmup() -> None:
    """A run of two epochs with a warm-up of ten would stop with an error instead of warming up."""
    runner = runner_of(4, 2, 256)
    hook = ScheduleHook(teacher_temperature=(0.04, 0.07), teacher_temperature_epochs=30)
    hook.before_train(runner)
    values = []
    for runner.iter in range(8):
        hook.before_train_iter(runner, runner.iter)
        values.append(runner.optim_wrapper.optimizer.param_groups[0]["lr"])
    assert values == pytest.approx(np.linspace(0, 5e-4, 8))
    assert [hook.temperature_schedule(i) for i in range(8)] == pytest.approx([0.04] * 4 + [0.07] * 4)


@pytest.mark.parametrize(
    ("epochs", "run", "expected"),  # expected: of each of five epochs of four iterations
    [
        (0, 20, [0.07] * 5),
        (0.25, 20, [0.04] + [0.07] * 4),
        (1, 20, [0.04] + [0.07] * 4),
        (1.5, 20, [0.04, 0.07, 0.07, 0.07, 0.07]),
        (2.5, 20, [0.04, 0.055, 0.07, 0.07, 0.07]),
        (4, 20, [0.04, 0.05, 0.06, 0.07, 0.07]),
        (30, 9, [0.04, 0.055, 0.07]),  # the third epoch is cut
        (30, 3, [0.04]),
    ],
)
def test_temperature_of_any_warm_up(epochs: float, run: int, expected: list[float]) -> None:
    """A warm-up of a part of an epoch, or longer than the run, would be an error or end at another temperature."""
    runner = runner_of(4, 5, 256)
    runner.train_loop.schedule_iters = run
    hook = ScheduleHook(teacher_temperature=(0.04, 0.07), teacher_temperature_epochs=epochs)
    hook.before_train(runner)
    got = []
    for runner.iter in range(run):
        hook.before_train_iter(runner, runner.iter)
        got.append(runner.model.teacher_temperature)
    assert got == pytest.approx(np.repeat(expected, 4)[:run])


def test_teacher_moves_with_the_momentum_of_its_iteration() -> None:
    """The teacher would follow with another iteration's momentum, or more than once."""
    runner = runner_of(2, 2, 256)
    schedule, hook = ScheduleHook(momentum=(0.5, 1.0)), TeacherHook()
    runner.hooks = [hook, schedule]
    logged: dict[str, float] = {}
    runner.message_hub = SimpleNamespace(update_scalars=logged.update)
    for each in (schedule, hook):
        each.before_train(runner)
    model, runner.iter = runner.model, 2
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    old = [parameter.clone() for parameter in model.teacher.parameters()]
    model.distillation.collect(torch.ones(2, 1, 4))
    hook.after_train_iter(runner, 2, outputs={"loss": torch.tensor(1.0)})
    momentum = cosine_array(0.5, 1.0, 2, 2)[2]
    for teacher, before, student in zip(
        model.teacher.parameters(), old, model.student.parameters(), strict=True
    ):
        torch.testing.assert_close(teacher, before * momentum + student * (1 - momentum))
    torch.testing.assert_close(model.distillation.center, torch.full((4,), 0.1))
    assert logged["train/momentum"] == pytest.approx(momentum)


def test_teacher_needs_a_schedule() -> None:
    """A config without the schedule would fail at the first step instead of before it."""
    with pytest.raises(UserError, match="ScheduleHook"):
        TeacherHook().before_train(SimpleNamespace(hooks=[]))
