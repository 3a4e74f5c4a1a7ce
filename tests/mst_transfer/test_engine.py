"""The epoch loop that can stop early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from torch import Tensor, nn

from mst_pretrain.engine import MSTRunner
from mst_transfer.engine import CappedEpochLoop


class Line(BaseModel):
    """One weight, pulled to zero; remembers the samples of training and counts those of validation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[float] = []
        self.validated = 0

    def forward(self, x: Tensor, mode: str = "tensor") -> Any:
        if mode == "predict":
            self.validated += len(x)
            return [{}]
        self.seen += x.tolist()
        return {"loss": (self.weight * x).square().mean()}


class Samples(torch.utils.data.Dataset):
    """Five numbers."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.tensor(float(index))}


def runner(tmp_path: Path, max_iters: int | None) -> MSTRunner:
    return MSTRunner(
        model=Line(),
        work_dir=str(tmp_path),
        val_dataloader={
            "dataset": Samples(),
            "batch_size": 1,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        },
        val_cfg={},
        val_evaluator=Evaluator([]),
        train_dataloader={
            "dataset": Samples(),
            "batch_size": 1,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"type": "CappedEpochLoop", "max_epochs": 3, "max_iters": max_iters},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1.0}},
        param_scheduler={"type": "MultiStepLR", "by_epoch": True, "milestones": [1, 3], "gamma": 0.1},
        default_scope="mmengine",
        log_level="ERROR",
        experiment_name=f"capped_{max_iters}",
    )


@pytest.mark.parametrize(
    ("max_iters", "iterations", "epochs", "validations"),
    [(None, 15, 3, 3), (7, 7, 2, 1), (5, 5, 1, 0), (99, 15, 3, 3)],
)
def test_stops_after_max_iters(
    tmp_path: Path, max_iters: int | None, iterations: int, epochs: int, validations: int
) -> None:
    """train_cfg.max_iters=2 would train a whole epoch and validate for hours, or None would end a full run early."""
    trained = runner(tmp_path, max_iters)
    trained.train()
    assert (trained.iter, trained.epoch) == (iterations, epochs)
    assert trained.max_iters == iterations
    assert trained.model.validated == 5 * validations
    assert trained.model.seen == [float(i % 5) for i in range(iterations)]
    assert (tmp_path / f"epoch_{epochs}.pth").is_file()


def test_resumed_where_it_stopped(tmp_path: Path) -> None:
    """Resuming a finished trial run would train one iteration more each time."""
    runner(tmp_path, 7).train()
    again = runner(tmp_path, 7)
    again.resume(str(tmp_path / "epoch_2.pth"))
    again.train()
    assert again.iter == 7 and again.model.seen == [] and again.model.validated == 0


def test_schedule_keeps_its_length(tmp_path: Path) -> None:
    """A short trial run would see another learning rate than the full run at the same iteration."""
    trained = runner(tmp_path, 7)
    trained.train()
    assert trained.optim_wrapper.get_lr()["lr"] == pytest.approx([0.1])


def test_max_iters_must_be_positive() -> None:
    """max_iters=0 would train one epoch or none, silently."""
    loader: Any = torch.utils.data.DataLoader(Samples())

    class Quiet:
        visualizer = None

    with pytest.raises(ValueError, match="max_iters must be positive or None, got 0"):
        CappedEpochLoop(Quiet(), loader, max_epochs=1, max_iters=0)
