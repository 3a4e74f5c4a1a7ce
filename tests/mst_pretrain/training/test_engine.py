"""The loop and the runner: lengths, accumulation, checkpoints, resume inside one process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.checkpoints.backbone import find_backbone, read_backbone
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.optim import MSTOptimWrapper
from mst_pretrain.training.runner import MSTRunner, build_runner
from mst_pretrain.training.schedule_and_teacher import ScheduleHook

MakeConfig = Callable[..., Config]
SGD = {"optim_wrapper__optimizer": {"type": "SGD", "lr": 1.0, "momentum": 0.9}}
# One schedule for both: batch 1 x 8 and 8 x 1. Batch statistics of the decoder's BN differ, so it is off.
NO_BN = {
    "model__decoder": None,
    "train_dataloader__batch_size": 8,
    "train_cfg__max_iters": 3,
    "train_cfg__max_epochs": 5,
}
LARGE = {"default_hooks__schedule__base_lr": 20.0, "default_hooks__schedule__warmup_epochs": 0}
LARGE |= {"default_hooks__schedule__freeze_last_layer_epochs": 0, "optim_wrapper__clip_grad_per_tensor": 0.5}


class Recorder(Hook):
    """What the log says at each iteration."""

    priority = "VERY_LOW"

    def __init__(self, *names: str) -> None:
        self.values: dict[str, list[float]] = {name: [] for name in names}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        for name, values in self.values.items():
            values.append(float(runner.message_hub.log_scalars[name].current()))


def train(cfg: Config, *hooks: Hook) -> MSTRunner:
    runner = build_runner(cfg)
    assert isinstance(runner, MSTRunner)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def weights(path: Path) -> dict[str, Tensor]:
    return load_checkpoint(path)["state_dict"]


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert set(one) == set(other)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=tolerance, atol=tolerance, msg=key)


def test_eight_of_one_are_one_of_eight(toy_config: MakeConfig) -> None:
    """Under accumulation the step, the teacher, the centre or the log would follow one micro-batch, not all."""
    logs = [Recorder("train/loss", "train/loss_ce", "train/teacher_entropy", "train/kl") for _ in range(2)]
    whole = train(toy_config(**NO_BN, **SGD, **LARGE), logs[0])
    small = NO_BN | {"train_dataloader__batch_size": 1, "train_cfg__accumulate": 8}
    parts = train(toy_config(**small, **SGD, **LARGE), logs[1])
    for name, values in logs[0].values.items():
        assert logs[1].values[name] == pytest.approx(values, rel=1e-4), name
    start, end = (weights(Path(whole.work_dir, name)) for name in ("initial.pth", "latest.pth"))
    moved = {key: (end[key] - start[key]).abs().max() for key in start}
    assert moved["student.backbone.blocks.0.mlp.fc1.weight"] > 1e-2
    assert moved["teacher.backbone.blocks.0.mlp.fc1.weight"] > 1e-5
    assert moved["distillation.center"] > 1e-2
    assert_near(weights(Path(parts.work_dir, "latest.pth")), end, 2e-5)
    loops = [runner.train_loop for runner in (whole, parts)]
    assert loops[0].iters_per_epoch == loops[1].iters_per_epoch == 2


@OPTIM_WRAPPERS.register_module()
class BFloat16OnCPU(MSTOptimWrapper):
    """MMEngine's own wrapper for mixed precision refuses the CPU."""

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def test_mixed_precision_trains_as_single_precision(toy_config: MakeConfig) -> None:
    """Under --amp a part of the step would fail on a half-precision tensor, or compute something else."""
    losses = []
    for kind in ("MSTOptimWrapper", "BFloat16OnCPU"):
        recorder = Recorder("train/loss_ce", "train/loss_rec", "train/grad_norm")
        runner = train(toy_config(optim_wrapper__type=kind, train_cfg__max_iters=3), recorder)
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in runner.model.parameters())
        losses.append(recorder.values)
    for name in ("train/loss_ce", "train/loss_rec"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=0.1)
    assert min(losses[1]["train/grad_norm"]) > 0


def test_run_starts_equal_and_leaves_its_files(toy_config: MakeConfig) -> None:
    """The teacher would start from other weights, or the random start of comparisons would be missing."""
    runner = train(toy_config(train_cfg__max_iters=2))
    folder = Path(runner.work_dir)
    start, end = weights(folder / "initial.pth"), weights(folder / "latest.pth")
    student = {key: value for key, value in start.items() if key.startswith("student.")}
    assert len(student) > 20
    for key, value in student.items():
        assert torch.equal(value, start[key.replace("student.", "teacher.", 1)])
    assert not torch.equal(end["distillation.center"], start["distillation.center"])
    assert (folder / "latest.pth").samefile(folder / "iter_2.pth")
    assert not list(folder.glob("*.part"))
    backbone = find_backbone(folder / "latest.pth", prefix="teacher.backbone.").state
    assert set(backbone) == set(runner.model.teacher.backbone.state_dict())
    shape = {**runner.cfg.model.backbone}
    name, wanted = shape.pop("name"), {k: v for k, v in shape.items() if k != "drop_path_rate"}
    for file in ("initial.pth", "latest.pth"):  # or every evaluation would ask for --model
        found = read_backbone(folder / file)
        assert (found.file.meta["architecture"], json.loads(found.file.meta["model_args"])) == (name, wanted)
        assert (found.architecture.name, found.architecture.arguments) == (name, wanted)
        assert found.file.meta["data"] == runner.cfg.data_root


def test_log_shows_the_values_that_were_used(toy_config: MakeConfig) -> None:
    """The logged learning rate would be another iteration's."""
    recorder = Recorder("train/lr", "train/momentum")
    runner = train(toy_config(train_cfg__max_iters=6), recorder)
    schedule = next(hook for hook in runner.hooks if isinstance(hook, ScheduleHook))
    lr, momentum = recorder.values["train/lr"], recorder.values["train/momentum"]
    assert lr == pytest.approx([schedule.lr_schedule(i) for i in range(6)])
    assert momentum == pytest.approx([schedule.momentum_schedule(i) for i in range(6)])
    assert lr[0] == 0 and lr[1] > 0


@pytest.mark.parametrize(
    ("options", "stop", "span"),
    [
        ({"train_cfg__max_epochs": 5}, 20, 20),
        ({"train_cfg__max_epochs": 5, "train_cfg__max_iters": 3}, 3, 20),
        ({"train_cfg__max_epochs": 1, "train_cfg__max_iters": 9}, 4, 4),
        ({"train_cfg__max_epochs": None, "train_cfg__max_iters": 9}, 9, 9),
        ({"train_cfg__max_epochs": 2.5}, 10, 10),
    ],
)
def test_length_of_the_run_and_of_its_schedules(
    toy_config: MakeConfig, options: dict[str, Any], stop: int, span: int
) -> None:
    """A trial of a few iterations would squeeze the whole schedule, or a run would not stop."""
    loop = build_runner(toy_config(**options)).build_train_loop(toy_config(**options).train_cfg)
    assert (loop.max_iters, loop.schedule_iters, loop.iters_per_epoch) == (stop, span, 4)


def test_no_epochs_leave_the_initial_weights(toy_config: MakeConfig) -> None:
    """The A/A comparison would start from weights that training touched."""
    runner = train(toy_config(train_cfg__max_epochs=0))
    start, end = (weights(Path(runner.work_dir, name)) for name in ("initial.pth", "latest.pth"))
    assert_near(start, end, 0.0)
    assert_near({k: v.cpu() for k, v in runner.model.state_dict().items()}, end, 0.0)


def test_impossible_lengths_are_refused(toy_config: MakeConfig) -> None:
    """A batch larger than the data set would divide by zero, no length would train for ever."""
    for options, match in (
        ({"train_dataloader__batch_size": 18}, "17 images.*batch of 18"),
        ({"train_cfg__accumulate": 5}, "17 images.*batch of 20"),
        ({"train_cfg__accumulate": 0}, "accumulate is 0"),
        ({"train_cfg__max_epochs": None}, "max_epochs nor max_iters"),
    ):
        cfg = toy_config(**options)
        with pytest.raises(UserError, match=match):
            build_runner(cfg).build_train_loop(cfg.train_cfg)


@pytest.mark.parametrize(
    ("accumulate", "decode", "compile"),
    [(1, "host", None), (2, "device", None), (1, "host", "aot_eager")],
)
def test_resumed_run_is_the_uninterrupted_one(
    toy_config: MakeConfig, accumulate: int, decode: str, compile: str | None
) -> None:
    """A resumed run would see other samples, drop other paths, or lose its optimizer's or centre's state.

    So would one whose images are decoded and kept elsewhere from then on.
    """
    options: dict[str, Any] = {
        "model__backbone__drop_path_rate": 0.3,
        "model__compile": compile,
        "default_hooks__checkpoint__interval": 3,
        "train_cfg__accumulate": accumulate,
        "train_dataloader__batch_size": 3,
    }
    where = {"train_dataloader__dataset__decode": decode, "train_dataloader__dataset__cache": decode}
    whole = train(toy_config(**options, **where, train_cfg__max_iters=5))
    rest = toy_config(**options, train_cfg__max_iters=5)
    rest.resume, rest.load_from = True, str(Path(whole.work_dir, "iter_3.pth"))
    resumed = train(rest)
    one, other = (load_checkpoint(Path(runner.work_dir, "iter_5.pth")) for runner in (whole, resumed))
    assert_near(one["state_dict"], other["state_dict"], 0.0)
    states = [checkpoint["optimizer"]["state"] for checkpoint in (one, other)]
    assert states[0] and all(
        torch.equal(states[0][index][name], states[1][index][name])
        for index in states[0]
        for name in states[0][index]
    )
    assert one["meta"]["run"] == other["meta"]["run"]
    assert (one["meta"]["run"]["batch"], one["meta"]["run"]["data"]["images"]) == (3 * accumulate, 17)
    assert not Path(resumed.work_dir, "initial.pth").exists()


def test_the_runs_seed_is_the_augmentations(toy_config: MakeConfig) -> None:
    """Every seed of a study would see the same crops, or a resumed run without a fixed seed others."""
    first = train(toy_config(randomness__seed=7, train_cfg__max_iters=1))
    assert first.train_loop.dataloader.dataset.seed == first.train_loop.sampler.seed == 7
    first = train(toy_config(randomness__seed=None, train_cfg__max_iters=1))
    cfg = toy_config(randomness__seed=None, train_cfg__max_iters=2)
    cfg.resume, cfg.load_from = True, str(Path(first.work_dir, "latest.pth"))
    loop = train(cfg).train_loop
    assert loop.dataloader.dataset.seed == loop.sampler.seed == first.seed


def test_resume_on_other_images_is_refused(toy_config: MakeConfig, tmp_path: Path, images: Path) -> None:
    """A run resumed on a changed folder would continue at a meaningless position."""
    first = train(toy_config(train_cfg__max_iters=1))
    folder = tmp_path / "fewer"
    folder.mkdir()
    for path in sorted(images.iterdir())[:10]:
        (folder / path.name).write_bytes(path.read_bytes())
    cfg = toy_config(train_cfg__max_iters=2, data_root=str(folder))
    cfg.resume, cfg.load_from = True, str(Path(first.work_dir, "latest.pth"))
    with pytest.raises(UserError, match=r"of the 17 images of the first run.*7 are not there.*data_root"):
        train(cfg)


@pytest.mark.parametrize("option", ["train_dataloader__batch_size", "train_cfg__accumulate"])
def test_resume_with_other_images_per_step_is_refused(toy_config: MakeConfig, option: str) -> None:
    """On twice the GPUs a run would count its steps as twice the epochs and end half-trained."""
    first = train(toy_config(train_cfg__max_iters=1))
    cfg = toy_config(train_cfg__max_iters=2, **{option: 8 if option.endswith("size") else 2})
    cfg.resume, cfg.load_from = True, str(Path(first.work_dir, "latest.pth"))
    with pytest.raises(
        UserError, match=r"4 images per step, this run has 8 = .* Give train_dataloader\.batch_size,"
    ):
        train(cfg)


@pytest.mark.parametrize("part", ["meta", "optimizer", "message_hub"])
def test_resume_from_a_part_of_a_checkpoint_is_refused(
    toy_config: MakeConfig, tmp_path: Path, part: str
) -> None:
    """Exported weights would be 'resumed' with a new optimizer, or end in a KeyError."""
    first = train(toy_config(train_cfg__max_iters=1))
    checkpoint = load_checkpoint(Path(first.work_dir, "latest.pth"))
    del checkpoint[part]
    torch.save(checkpoint, tmp_path / "part.pth")
    cfg = toy_config(train_cfg__max_iters=2)
    cfg.resume, cfg.load_from = True, str(tmp_path / "part.pth")
    with pytest.raises(UserError, match=rf"part\.pth cannot be resumed: it has no {part}.*--init-from"):
        train(cfg)


HEAD = {"prototypes": 24, "norm_last_layer": False}


@pytest.mark.parametrize(
    ("change", "message", "of_weights"),
    [
        (
            {"model__head": {**HEAD, "norm_last_layer": True}},
            "model.head.norm_last_layer: False -> True",
            "the config",
        ),
        ({"model__decoder": None}, "model.decoder: {", "0 weights missing"),
    ],
)
def test_resume_with_another_config_is_refused(
    toy_config: MakeConfig, change: dict[str, Any], message: str, of_weights: str
) -> None:
    """Moments would be dropped or weights half loaded, also where a checkpoint does not tell its config."""
    first = train(toy_config(train_cfg__max_iters=1, model__head=HEAD))
    latest = Path(first.work_dir, "latest.pth")
    for expected in (message, of_weights):
        cfg = toy_config(**{"train_cfg__max_iters": 2, "model__head": HEAD, **change})
        cfg.resume, cfg.load_from, cfg.work_dir = True, str(latest), first.work_dir
        saved = {path: path.read_bytes() for path in Path(first.work_dir).glob("*.py")}
        with pytest.raises(UserError) as raised:
            train(cfg)
        assert expected in str(raised.value)
        assert saved and saved == {path: path.read_bytes() for path in Path(first.work_dir).glob("*.py")}
        checkpoint = load_checkpoint(latest)
        checkpoint["meta"].pop("run", None)
        latest.unlink()
        torch.save(checkpoint, latest)


def test_what_changes_no_step_may_change(toy_config: MakeConfig, tmp_path: Path, images: Path) -> None:
    """A run could not go on with other workers, intervals or limits, or with its images elsewhere."""
    first = train(toy_config(train_cfg__max_iters=1))
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    options = {
        "train_cfg__max_iters": 2,
        "train_dataloader__num_workers": 1,
        "default_hooks__logger__interval": 7,
    }
    options |= {"default_hooks__watch__max_bad_share": 0.5, "default_hooks__checkpoint__interval": 1}
    options |= {"train_dataloader__batch_size": 2, "train_cfg__accumulate": 2, "log_level": "ERROR"}
    cfg = toy_config(data_root=str(moved), default_hooks__exact_resume={"type": "ExactResumeHook"}, **options)
    cfg.resume, cfg.load_from = True, str(Path(first.work_dir, "latest.pth"))
    assert train(cfg).iter == 2


def test_crash_while_saving_leaves_the_last_checkpoint(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed while it saves would have nothing to resume from."""
    runner = train(toy_config(train_cfg__max_iters=1))
    latest = Path(runner.work_dir, "latest.pth")
    before = latest.read_bytes()

    def half(checkpoint: Any, filename: str, *args: Any, **kwargs: Any) -> None:
        Path(filename).write_bytes(before[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr("mmengine.runner.runner.save_checkpoint", half)
    with pytest.raises(KeyboardInterrupt):
        runner.save_checkpoint(runner.work_dir, "iter_1.pth", by_epoch=False)
    assert latest.read_bytes() == before == Path(runner.work_dir, "iter_1.pth").read_bytes()
    monkeypatch.undo()
    runner.save_checkpoint(runner.work_dir, "iter_2.pth", by_epoch=False)
    assert latest.samefile(Path(runner.work_dir, "iter_2.pth"))


def test_latest_without_hard_links(toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links no run could save."""

    def refuse(*args: Any) -> None:
        raise OSError("no links")

    monkeypatch.setattr("os.link", refuse)
    runner = train(toy_config(train_cfg__max_iters=1))
    whole, latest = (Path(runner.work_dir, name) for name in ("iter_1.pth", "latest.pth"))
    assert latest.read_bytes() == whole.read_bytes() and not latest.samefile(whole)


class Latest(Hook):
    """What latest.pth holds when the first iteration begins."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            self.content = Path(runner.work_dir, "latest.pth").read_bytes()


def test_a_new_run_keeps_an_older_result_until_it_has_its_own(toy_config: MakeConfig) -> None:
    """Starting again in the work directory of a finished run would replace its latest.pth by untrained weights."""
    cfg, latest = toy_config(train_cfg__max_iters=1), Latest()
    path = Path(cfg.work_dir, "latest.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"two days of work")
    train(cfg, latest)
    assert latest.content == b"two days of work"
    assert path.samefile(path.with_name("iter_1.pth"))


def test_a_run_of_no_iteration_leaves_the_initial_weights(toy_config: MakeConfig) -> None:
    """The quickstart's --pretrain-epochs 0 would have no checkpoint to start from."""
    cfg = toy_config(train_cfg__max_epochs=0)
    train(cfg)
    assert Path(cfg.work_dir, "latest.pth").samefile(Path(cfg.work_dir, "initial.pth"))
