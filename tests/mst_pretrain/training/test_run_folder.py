"""A pretraining with ``run_folder = True``: its files, its lines, and that a resumed one continues them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import Stopped, UserError
from mst_pretrain.runtime.run_files import newest_checkpoint
from mst_pretrain.training.run_log import TIMES
from mst_pretrain.training.runner import MSTRunner, build_runner

MakeConfig = Callable[..., Config]


class Killed(Exception):
    """In the place of a signal that no process survives."""


class AtStep(Hook):
    """Does something after so many steps, before the log and the checkpoint of that step."""

    priority = "VERY_HIGH"

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step, self.action = step, action

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter + 1 == self.step:
            self.action()


def kill() -> None:
    raise Killed


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def config_of(make: MakeConfig, folder: Path, **options: Any) -> Config:
    cfg = make(
        run_folder=True,
        train_cfg__max_iters=12,
        default_hooks__logger__interval=5,
        default_hooks__checkpoint__interval=4,
        **options,
    )
    cfg.work_dir, cfg.log_level = str(folder), "INFO"
    cfg.experiment_name = f"{folder.parent.name}-{folder.name}"
    return cfg


def train(cfg: Config, *hooks: Hook, resume: bool = False) -> MSTRunner:
    if resume:
        cfg.resume, cfg.load_from = True, str(newest_checkpoint(cfg.work_dir, cfg.get("run_folder", False)))
        cfg.experiment_name += "-resumed"
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner  # type: ignore[return-value]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl, without what depends on the time."""
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(set(TIMES) <= set(line) for line in lines if line["stage"] == "train")
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path)["state_dict"])


@pytest.fixture
def whole(toy_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    """The folder of a run that nothing interrupted, and what it printed."""
    train(config_of(toy_config, tmp_path / "whole"))
    return tmp_path / "whole", capsys.readouterr().out


def test_files_and_lines(whole: tuple[Path, str]) -> None:
    """A user would not find the weights, or read pages of versions before the first line."""
    folder, printed = whole
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {
        *("config.py", "train.log", "metrics.jsonl"),
        *("checkpoints/last.pth", "checkpoints/initial.pth", "checkpoints/images.npz"),
        "checkpoints/iter_8.pth",  # the one before the last
    }
    lines = printed.splitlines()
    assert [line[:22] for line in lines] == [f"pretrain  step {step:>6}/" for step in (5, 10, 12)]
    assert all(line.endswith("  healthy") and " loss " in line and "(match " in line for line in lines)
    log = (folder / "train.log").read_text()
    assert "Hooks will be executed" in log and all(line in log for line in lines)
    assert [line["step"] for line in lines_of(folder)] == [5, 10, 12]
    assert load_checkpoint(folder / "checkpoints/last.pth")["meta"]["iter"] == 12
    assert load_checkpoint(folder / "checkpoints/initial.pth")["meta"]["iter"] == 0


def test_the_numbers_of_a_line(whole: tuple[Path, str], toy_config: MakeConfig, tmp_path: Path) -> None:
    """A curve would show one step of an interval, or a report miss a number it draws."""
    cfg = config_of(toy_config, tmp_path / "every")
    cfg.default_hooks.logger.interval = 1
    train(cfg)
    steps, line = lines_of(tmp_path / "every")[5:10], lines_of(whole[0])[1]
    for name in ("loss", "loss_ce", "loss_rec", "kl", "feature_std", "teacher_entropy", "center_norm"):
        assert line[name] == pytest.approx(sum(step[name] for step in steps) / 5, rel=1e-5), name
    assert line["lr"] == steps[-1]["lr"] and line["total"] == 12
    assert line["epoch"] == 2.5  # 17 images in batches of 4 are 4 steps


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_a_resumed_run_continues_its_numbers(
    whole: tuple[Path, str], toy_config: MakeConfig, tmp_path: Path, end: str
) -> None:
    """Lines would be there twice, be missing, or average other steps than those of an uninterrupted run."""
    cfg = config_of(toy_config, tmp_path / "cut")
    if end == "killed":  # at step 11: line 10 is beyond the checkpoint of step 8
        with pytest.raises(Killed):
            train(cfg, AtStep(11, kill))
        assert load_checkpoint(newest_checkpoint(tmp_path / "cut"))["meta"]["iter"] == 8
    else:
        with pytest.raises(Stopped, match=r"Continue from .*checkpoints/last\.pth with --resume"):
            train(cfg, AtStep(7, terminate))
    assert [line["step"] for line in lines_of(tmp_path / "cut")] == ([5, 10] if end == "killed" else [5])
    with open(tmp_path / "cut/metrics.jsonl", "a") as stream:
        stream.write('{"step": 11, "sta')
    train(config_of(toy_config, tmp_path / "cut"), resume=True)
    assert lines_of(tmp_path / "cut") == lines_of(whole[0])
    first, second = (weights(folder / "checkpoints/last.pth") for folder in (whole[0], tmp_path / "cut"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("first", [True, False])
def test_the_layout_may_change_at_a_resume(
    whole: tuple[Path, str], toy_config: MakeConfig, tmp_path: Path, first: bool
) -> None:
    """A run that was begun before run folders were there could not be continued as one."""
    for layout in (first, not first):
        cfg = config_of(toy_config, tmp_path / "both")
        cfg.run_folder = layout
        if layout is first:
            with pytest.raises(Stopped):
                train(cfg, AtStep(7, terminate))
        else:
            train(cfg, resume=True)
    last = tmp_path / "both" / ("latest.pth" if first else "checkpoints/last.pth")
    expected, found = weights(whole[0] / "checkpoints/last.pth"), weights(last)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_config_in_the_run_folder_is_not_written_over(toy_config: MakeConfig, tmp_path: Path) -> None:
    """The commented config that a user edits would be replaced by pages of resolved values."""
    folder = tmp_path / "own"
    folder.mkdir()
    cfg = config_of(toy_config, folder)
    written = Path(cfg.filename).read_text()
    (folder / "config.py").write_text(written)
    object.__setattr__(cfg, "_filename", str(folder / "config.py"))
    train(cfg)
    assert (folder / "config.py").read_text() == written


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "type",
            "EMAHook",
            r"default_hooks\.checkpoint\.type is EMAHook.*CheckpointHook or HealthyCheckpointHook",
        ),
        (
            "out_dir",
            "elsewhere",
            r"default_hooks\.checkpoint\.out_dir: a run folder keeps its checkpoints itself",
        ),
    ],
)
def test_checkpoints_elsewhere_are_refused(
    toy_config: MakeConfig, tmp_path: Path, key: str, value: str, message: str
) -> None:
    """Checkpoints would lie where --resume does not look."""
    cfg = config_of(toy_config, tmp_path / "run")
    cfg.default_hooks.checkpoint[key] = value
    with pytest.raises(UserError, match=message):
        build_runner(cfg)
