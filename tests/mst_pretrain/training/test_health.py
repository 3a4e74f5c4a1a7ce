"""Steps that are not finite, and collapse: what moves, what is said, what stays on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor

import mst_pretrain
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training import health
from mst_pretrain.training.health import WATCHED, signs_of_collapse
from mst_pretrain.training.optim import MSTOptimWrapper
from mst_pretrain.training.runner import build_runner

MakeConfig = Callable[..., Config]
EVERY_STEP = {"default_hooks__checkpoint__interval": 1, "default_hooks__checkpoint__max_keep_ckpts": -1}
BN_HEAD = {"model__head": {"prototypes": 24, "hidden_dim": 16, "bottleneck_dim": 8, "norm": "bn"}}


@pytest.fixture
def nan_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the images of some steps (counted from 1) NaN, as a broken decoder would."""
    original, calls = MST.loss, [0]

    def inject(*steps: int) -> None:
        def loss(self: MST, global_views: Tensor, local_views: Tensor, seeds: Tensor) -> dict[str, Tensor]:
            calls[0] += 1
            if calls[0] in steps:
                global_views = global_views.clone()
                global_views[0, 0, 0, 0, 0] = math.nan
            return original(self, global_views, local_views, seeds)

        monkeypatch.setattr(MST, "loss", loss)

    return inject


def weights(work_dir: Path, name: str) -> dict[str, Tensor]:
    return load_checkpoint(work_dir / name)["state_dict"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_moves_nothing(
    toy_config: MakeConfig, nan_at: Callable[..., None], accumulate: int
) -> None:
    """One broken image would turn the weights, the teacher, the centre or a batch norm's statistics into NaN."""
    nan_at(3 * accumulate)  # with two micro-batches the second is broken, the first was whole
    cfg = toy_config(train_cfg__max_iters=4, train_cfg__accumulate=accumulate, **EVERY_STEP, **BN_HEAD)
    cfg.default_hooks.checkpoint.update(type="CheckpointHook", by_epoch=False)  # ours saves no skipped step
    runner = build_runner(cfg)
    runner.train()
    work_dir = Path(cfg.work_dir)
    before, skipped, after = (weights(work_dir, f"iter_{step}.pth") for step in (2, 3, 4))
    assert any("running_mean" in name for name in before)
    assert [name for name in before if not torch.equal(before[name], skipped[name])] == []
    moved = [name for name in skipped if not torch.equal(skipped[name], after[name])]
    assert {name.partition(".")[0] for name in moved} >= {"student", "teacher", "decoder", "distillation"}
    assert all(torch.isfinite(value).all() for value in after.values())


def test_the_images_of_a_skipped_step_are_named(
    toy_config: MakeConfig, images: Path, nan_at: Callable[..., None]
) -> None:
    """Nobody could find the broken image among a million."""
    nan_at(2)
    cfg = toy_config(train_cfg__max_iters=3)
    runner = build_runner(cfg)
    runner.train()
    (line,) = Path(cfg.work_dir, "skipped_steps.jsonl").read_text().splitlines()
    entry = json.loads(line)
    seen = [index for _, index in zip(range(8), runner.train_loop.sampler._order(0), strict=False)]
    paths = runner.train_loop.dataloader.dataset.source.paths
    assert entry == {"step": 2, "losses": ["nan"], "images": [str(paths[index]) for index in seen[4:]]}


def test_a_run_that_stays_not_finite_stops(
    toy_config: MakeConfig, nan_at: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken run would go on for days, or lose the last good checkpoint."""
    nan_at(3, 5, 6, 7)  # the single bad step is survived and does not count
    cfg = toy_config(train_cfg__max_iters=9, default_hooks__health__max_skipped=3, **EVERY_STEP)
    with pytest.raises(
        UserError, match=r"3 steps in a row, up to step 7, .*latest\.pth.*base_lr.*skipped_steps"
    ):
        build_runner(cfg).train()
    work_dir = Path(cfg.work_dir)
    assert load_checkpoint(work_dir / "latest.pth")["meta"]["iter"] == 4
    assert all(torch.isfinite(value).all() for value in weights(work_dir, "latest.pth").values())
    assert len((work_dir / "skipped_steps.jsonl").read_text().splitlines()) == 4
    assert "Step 7 skipped, 3 in a row, 4 in all: the loss is not finite" in capsys.readouterr().out


def test_no_checkpoint_is_written_while_steps_are_skipped(
    toy_config: MakeConfig, nan_at: Callable[..., None], tmp_path: Path
) -> None:
    """Copies of broken weights would push the good checkpoints out, or a checkpoint be lost to one bad image."""
    nan_at(4, 7, 8)
    keep_two = {"default_hooks__checkpoint__interval": 2, "default_hooks__checkpoint__max_keep_ckpts": 2}
    cfg = toy_config(train_cfg__max_iters=10, default_hooks__health__max_skipped=2, **keep_two)
    with pytest.raises(UserError, match=r"2 steps in a row, up to step 8, .*It is of step 6, which may"):
        build_runner(cfg).train()
    kept = {path.name for path in Path(cfg.work_dir).glob("*.pth")}
    assert kept == {
        "initial.pth",
        "iter_5.pth",
        "iter_6.pth",
        "latest.pth",
    }  # 5: what was due at the skipped 4
    nan_at(2)
    cfg = toy_config(train_cfg__max_iters=2, **keep_two)
    build_runner(cfg).train()
    assert load_checkpoint(Path(cfg.work_dir, "latest.pth"))["meta"]["iter"] == 2  # the end is always saved


@pytest.mark.parametrize("broken", ["weights", "end"])
def test_broken_weights_are_never_saved(
    toy_config: MakeConfig, nan_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The end of a run would replace its last good checkpoint by weights of which every answer is NaN."""
    cfg = toy_config(train_cfg__max_iters=6, default_hooks__checkpoint__interval=4)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    runner = build_runner(cfg)
    if broken == "end":
        nan_at(5, 6)
    else:
        step = MSTOptimWrapper.step

        def breaking(wrapper: MSTOptimWrapper, **kwargs: Any) -> None:
            step(wrapper, **kwargs)
            if runner.iter == 5:
                next(runner.model.student.parameters()).data.fill_(math.inf)

        monkeypatch.setattr(MSTOptimWrapper, "step", breaking)
    with pytest.raises(UserError, match=r"No checkpoint of step 6 was written: .*latest\.pth"):
        runner.train()
    assert {path.name for path in Path(cfg.work_dir).glob("*.pth")} == {
        "initial.pth",
        "iter_4.pth",
        "latest.pth",
    }
    assert all(torch.isfinite(value).all() for value in weights(Path(cfg.work_dir), "latest.pth").values())


def test_checkpoints_by_epoch_are_refused(toy_config: MakeConfig) -> None:
    """The run would end without a single checkpoint: the loop is one epoch to MMEngine."""
    with pytest.raises(UserError, match="by_epoch"):
        build_runner(toy_config(default_hooks__checkpoint__by_epoch=True))


FULL = math.log(1024)


@pytest.mark.parametrize(
    ("values", "sign"),
    [
        ((0.999 * FULL, 0.999 * FULL, 0.0, 0.05), "ln K"),
        ((0.999 * FULL, 0.8 * FULL, 0.2 * FULL, 0.05), ""),
        ((0.5 * FULL, 0.3 * FULL, 0.2 * FULL, 0.05), ""),
        ((0.001 * FULL, 0.001 * FULL, 0.0, 0.05), "one prototype"),
        ((0.5 * FULL, 0.001 * FULL, 0.5 * FULL, 0.05), ""),
        ((0.5 * FULL, 0.3 * FULL, 0.2 * FULL, 0.0009), "one feature"),
        ((0.5 * FULL, 0.3 * FULL, 0.2 * FULL, 0.0011), ""),
    ],
)
def test_signs_of_collapse(values: tuple[float, ...], sign: str) -> None:
    """A healthy run would be stopped, or a collapsed one not noticed."""
    signs = signs_of_collapse(dict(zip(WATCHED, values, strict=True)), 1024, 400)
    assert len(signs) == bool(sign) and sign in "".join(signs)
    weighted = dict(zip(WATCHED, values, strict=True)) | {"loss_ce": 0.1 * values[0]}
    assert signs_of_collapse(weighted, 1024, 400, lambda_ce=0.1) == signs


class _ConstantHead(torch.nn.Module):
    """A head that answers the same for every image, but still takes part in the graph."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head, self.last_layer = head, head.last_layer

    def forward(self, x: Tensor, full_precision: bool = False) -> Tensor:
        return self.head(torch.ones_like(x) + 0 * x, full_precision)


def test_a_collapsed_run_is_noticed_and_stops(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Days of training would go into a model that tells no image from another; its last good weights would be lost."""
    build = mst_pretrain.method.mst.Network.__init__

    def collapsed(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self.head = _ConstantHead(self.head)

    monkeypatch.setattr(mst_pretrain.method.mst.Network, "__init__", collapsed)
    health = {"collapse_interval": 5, "collapse_patience": 15, "type": "HealthHook"}
    cfg = toy_config(
        train_cfg__max_epochs=None,
        train_cfg__max_iters=200,
        model__decoder=None,
        default_hooks__schedule__warmup_epochs=5,
        default_hooks__health=health,
        model__distillation={"center_momentum": 0.5},
        **{**EVERY_STEP, "default_hooks__checkpoint__max_keep_ckpts": 2},
    )
    with pytest.raises(
        UserError, match=r"collapsed, for 15 iterations.*ln K.*before_collapse_iter_\d+\.pth.*momentum"
    ):
        build_runner(cfg).train()
    assert "looks collapsed, for 5 iterations" in capsys.readouterr().out
    (copy,) = Path(cfg.work_dir).glob("before_collapse*")
    kept = load_checkpoint(copy)["meta"]["iter"]
    assert copy.name == f"before_collapse_iter_{kept}.pth"
    latest = load_checkpoint(Path(cfg.work_dir, "latest.pth"))["meta"]["iter"]
    assert latest - kept == 10  # found at a window's end, before that step's checkpoint; so was the end
    assert kept > 20  # 5 epochs of warm-up: 4 iterations each
    cfg.resume, cfg.load_from = True, str(Path(cfg.work_dir, "latest.pth"))
    with pytest.raises(UserError, match=rf"for \d+ iterations.*stays: .*{copy.name}"):
        build_runner(cfg).train()
    assert [path.name for path in Path(cfg.work_dir).glob("before_collapse*")] == [copy.name]
    assert load_checkpoint(copy)["meta"]["iter"] == kept


@pytest.mark.parametrize(("max_keep", "kept"), [(-1, 9), (2, 14)])
def test_the_kept_checkpoint_is_of_before_the_window(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, max_keep: int, kept: int
) -> None:
    """A collapse is seen at a window's end: the checkpoint of that moment is already inside it."""
    judged: list[dict[str, float]] = []

    def signs(mean: dict[str, float], *_: Any) -> list[str]:
        judged.append(mean)
        return ["a sign"] if len(judged) > 2 else []

    monkeypatch.setattr(health, "signs_of_collapse", signs)
    cfg = toy_config(
        train_cfg__max_iters=20,
        default_hooks__schedule__warmup_epochs=0,
        default_hooks__health={"type": "HealthHook", "collapse_interval": 5, "collapse_patience": 10},
        **{**EVERY_STEP, "default_hooks__checkpoint__max_keep_ckpts": max_keep},
    )
    with pytest.raises(UserError, match=rf"stays: .*before_collapse_iter_{kept}\.pth"):
        build_runner(cfg).train()
    (copy,) = Path(cfg.work_dir).glob("before_collapse*")
    assert load_checkpoint(copy)["meta"]["iter"] == kept


def test_a_healthy_toy_run_is_left_alone(toy_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """Every run would be called collapsed at its start."""
    health = {"type": "HealthHook", "collapse_interval": 5, "collapse_patience": 5}
    cfg = toy_config(train_cfg__max_iters=20, default_hooks__health=health)
    cfg.default_hooks.schedule.warmup_epochs = 1
    build_runner(cfg).train()
    assert "collapsed" not in capsys.readouterr().out


def test_averages_are_over_the_steps_that_were_made(
    toy_config: MakeConfig, nan_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A skipped step would count as a loss of zero, or two windows be judged as one of twice the loss."""
    judged: list[float] = []
    original = signs_of_collapse

    def spy(mean: dict[str, float], *args: Any) -> list[str]:
        judged.append(mean["loss_ce"])
        return original(mean, *args)

    monkeypatch.setattr(health, "signs_of_collapse", spy)
    nan_at(4)  # the fourth step would end the first window
    cfg = toy_config(
        train_cfg__max_iters=10, default_hooks__health={"type": "HealthHook", "collapse_interval": 4}
    )
    cfg.default_hooks.schedule.warmup_epochs = 0
    losses: list[float] = []

    class Recorder(Hook):
        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
            losses.append(float(outputs["loss_ce"]))

    runner = build_runner(cfg)
    runner.register_hook(Recorder())
    runner.train()
    made = [loss for loss in losses if math.isfinite(loss)]
    assert len(losses) == 10 and len(made) == 9
    assert judged == pytest.approx([sum(made[:4]) / 4, sum(made[4:8]) / 4], rel=1e-5)
