"""A fine-tuning with ``run_folder = True``: validations, the best checkpoint, and both after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn

import mst_transfer.training.loops  # noqa: F401 (registers them)
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.run_files import newest_checkpoint
from mst_pretrain.training.metrics_file import MetricsFile
from mst_pretrain.training.run_log import TIMES
from mst_pretrain.training.runner import MSTRunner, build_runner
from mst_transfer.comparison.identity import run_beside

SCORES = {3: 0.10, 6: 0.30, 9: 0.20, 12: 0.25}  # by step: the best is the second


class CrashedHere(Exception):
    """In the place of a signal that no process survives."""


@MODELS.register_module()
class RunFolderToy(BaseModel):
    """One weight that falls a little in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, mode: str = "tensor") -> Any:
        if mode == "predict":
            return [{} for _ in x]
        return {"loss_cls": (self.weight * x).mean(), "loss_bbox": self.weight.square().mean()}


@DATASETS.register_module()
class RunFolderNumbers(torch.utils.data.Dataset):
    """Six numbers."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.tensor(0.5 + index)}


@METRICS.register_module()
class RunFolderScore(BaseMetric):
    """An average precision by step, written down above."""

    default_prefix = "coco"
    step, crash_at, scores = 0, 0, SCORES

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        if RunFolderScore.step == RunFolderScore.crash_at:
            raise CrashedHere
        return {"bbox_mAP": RunFolderScore.scores[RunFolderScore.step], "bbox_mAP_50": 0.9}


class KnowsStep(Hook):
    """Tells the metric the step; ends the run in the middle of things."""

    def __init__(self, crash_before_log: int = 0) -> None:
        self.crash_before_log = crash_before_log

    def before_val_epoch(self, runner: Any) -> None:
        RunFolderScore.step = runner.iter

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter + 1 == self.crash_before_log:
            raise CrashedHere


LOOPS = {
    "iterations": {"type": "ExactIterLoop", "max_iters": 12, "val_begin": 1, "val_interval": 3},
    "epochs": {"type": "CappedEpochLoop", "max_epochs": 4, "val_interval": 1},
}


def config(folder: Path, loop: str, **checkpoint: Any) -> Config:
    loader: dict[str, Any] = {
        "dataset": {"type": "RunFolderNumbers"},
        "batch_size": 2,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "collate_fn": {"type": "default_collate"},
    }
    return Config(
        {
            "run_folder": True,
            "model": {"type": "RunFolderToy"},
            "work_dir": str(folder),
            "train_dataloader": loader,
            "train_cfg": dict(LOOPS[loop]),
            "val_dataloader": {**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
            "val_cfg": {},
            "val_evaluator": {"type": "RunFolderScore"},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
            "default_hooks": {
                "logger": {"type": "LoggerHook", "interval": 2},
                "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 3, **checkpoint},
            },
            "randomness": {"seed": 3},
            "default_scope": "mmengine",
            "experiment_name": f"{folder.parent.name}_{folder.name}_{loop}",
        }
    )


def train(
    folder: Path, loop: str, hook: KnowsStep | None = None, resume: bool = False, **checkpoint: Any
) -> MSTRunner:
    cfg = config(folder, loop, **checkpoint)
    if resume:
        cfg.resume, cfg.load_from = True, str(newest_checkpoint(folder))
        cfg.experiment_name += "_resumed"
    runner = build_runner(cfg)
    runner.register_hook(hook or KnowsStep(), "HIGHEST")
    runner.train()
    return runner  # type: ignore[return-value]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def step_of(folder: Path, name: str) -> int:
    return int(load_checkpoint(folder / "checkpoints" / name)["meta"]["iter"])


@pytest.mark.parametrize("loop", LOOPS)
def test_validations_and_the_best_checkpoint(
    tmp_path: Path, loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last weights would be taken for the best ones."""
    train(tmp_path / "run", loop)
    found = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    checkpoints = {f"checkpoints/{name}.pth" for name in ("initial", "last", "best")}
    assert found == {"config.py", "train.log", "metrics.jsonl", *checkpoints}
    assert [step_of(tmp_path / "run", name) for name in ("initial.pth", "best.pth", "last.pth")] == [0, 6, 12]
    evals = [line for line in lines_of(tmp_path / "run") if line["stage"] == "eval"]
    assert [(line["step"], round(line["AP"], 6), line["best"]) for line in evals] == [
        *((3, 10.0, True), (6, 30.0, True)),
        *((9, 20.0, False), (12, 25.0, False)),
    ]
    assert evals[0]["main"] == "AP" and evals[0]["AP50"] == 90.0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("training  step      2/12       16.7 %  loss ")
    assert " (cls " in printed[0] and ", box " in printed[0]
    shown = [line for line in printed if line.lstrip().startswith("eval")]
    assert shown[1] == "          eval      6/12  AP 30.0  AP50 90.0  (best)   saved checkpoints/best.pth"
    assert shown[2] == "          eval      9/12  AP 20.0  AP50 90.0  (best 30.0 at step 6)"
    assert len(printed) == 6 + 4


@pytest.mark.parametrize(("loop", "by_epoch"), [("iterations", False), ("epochs", False), ("epochs", True)])
@pytest.mark.parametrize("where", ["training", "validation", "after the best was saved"])
def test_an_interrupted_run_has_the_same_numbers(
    tmp_path: Path, loop: str, where: str, by_epoch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validation would be missing, made twice, or the best checkpoint be replaced by a worse one."""
    scores = {**SCORES, 9: 0.5} if where == "after the best was saved" else SCORES
    monkeypatch.setattr(RunFolderScore, "scores", scores)
    expected = tmp_path / "whole"
    options = {"by_epoch": True, "interval": 1} if by_epoch else {}
    train(expected, loop, **options)
    with monkeypatch.context() as patch, pytest.raises(CrashedHere):
        if where == "validation":
            patch.setattr(RunFolderScore, "crash_at", 9)
        if where == "after the best was saved":
            patch.setattr(MetricsFile, "add", crash_at_eval(9))
        train(tmp_path / "cut", loop, KnowsStep(11 if where == "training" else 0), **options)
    train(tmp_path / "cut", loop, resume=True, **options)
    assert lines_of(tmp_path / "cut") == lines_of(expected)
    assert step_of(tmp_path / "cut", "best.pth") == step_of(expected, "best.pth")
    one, other = (load_checkpoint(folder / "checkpoints/last.pth") for folder in (tmp_path / "cut", expected))
    assert torch.equal(one["state_dict"]["weight"], other["state_dict"]["weight"])


def crash_at_eval(step: int) -> Callable[..., None]:
    """MetricsFile.add that ends the run where it should write a validation."""
    add = MetricsFile.add

    def crashing(self: MetricsFile, line: dict[str, Any]) -> None:
        if line["stage"] == "eval" and line["step"] == step:
            raise CrashedHere
        add(self, line)

    return crashing


def test_a_score_that_no_validation_gives(tmp_path: Path) -> None:
    """A whole training would keep no best checkpoint, and nobody know why."""
    with pytest.raises(UserError, match="save_best is 'coco/segm_mAP', and the validation gives AP, AP50"):
        train(tmp_path / "run", "iterations", save_best="coco/segm_mAP")


def test_the_score_that_was_asked_for(tmp_path: Path) -> None:
    """save_best would be ignored in a run folder."""
    train(tmp_path / "run", "iterations", save_best="coco/bbox_mAP", rule="less")
    assert step_of(tmp_path / "run", "best.pth") == 3


def test_the_record_lies_in_the_run_folder(tmp_path: Path) -> None:
    """A test of checkpoints/best.pth would not know which training it belongs to."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text('{"seed": 7}')
    assert run_beside(tmp_path / "checkpoints/best.pth") == {"seed": 7} == run_beside(tmp_path / "latest.pth")
