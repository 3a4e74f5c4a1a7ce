"""The loops: stopping early, and going on as if nothing had happened."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from torch import Tensor, nn

import mst_transfer.training.loops  # noqa: F401 (registers them)
from mst_pretrain.training.runner import MSTRunner
from mst_transfer.training.resume import Place, SeededSamples, StepBatches, numbered


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
    [(None, 15, 3, 3), (7, 7, 1, 1), (5, 5, 1, 0), (99, 15, 3, 3)],
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
    name = f"iter_{iterations}.pth" if iterations % 5 else f"epoch_{epochs}.pth"
    assert (tmp_path / name).samefile(tmp_path / "latest.pth")


def test_resumed_where_it_stopped(tmp_path: Path) -> None:
    """Resuming a finished trial run would train one iteration more each time."""
    runner(tmp_path, 7).train()
    again = runner(tmp_path, 7)
    again.resume(str(tmp_path / "iter_7.pth"))
    again.train()
    assert again.iter == 7 and again.model.seen == [] and again.model.validated == 0


def test_schedule_keeps_its_length(tmp_path: Path) -> None:
    """A short trial run would see another learning rate than the full run at the same iteration."""
    trained = runner(tmp_path, 7)
    trained.train()
    assert trained.optim_wrapper.get_lr()["lr"] == pytest.approx([0.1])


class Drawing(Line):
    """The line with dropout: remembers in its weights what was seen, in which order, and what was drawn."""

    def forward(self, x: Tensor, mode: str = "tensor") -> Any:
        noise = torch.rand(1) if mode == "loss" else torch.zeros(1)
        found = super().forward(x, mode)
        return found if mode == "predict" else {"loss": found["loss"] + self.weight.sum() * noise.sum()}


class Augmented(Samples):
    """Five numbers, each with something drawn from NumPy and from PyTorch."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": index + torch.rand(()) + float(np.random.rand())}


LOOPS = {
    "epochs": ({"type": "CappedEpochLoop", "max_epochs": 3}, "DefaultSampler"),
    "iterations": (
        {"type": "ExactIterLoop", "max_iters": 15, "val_begin": 1, "val_interval": 4},
        "InfiniteSampler",
    ),
    "passes": ({"type": "ExactIterLoop", "max_iters": 15, "val_begin": 99}, "DefaultSampler"),
}


def drawing_runner(folder: Path, loop: str, workers: int) -> MSTRunner:
    train_cfg, sampler = LOOPS[loop]
    samples = {"dataset": Augmented(), "num_workers": workers, "persistent_workers": workers > 0}
    return MSTRunner(
        model=Drawing(),
        work_dir=str(folder),
        train_dataloader={
            **samples,
            "batch_size": 1,
            "sampler": {"type": sampler, "shuffle": True},
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg=dict(train_cfg),
        val_dataloader={
            **samples,
            "batch_size": 1,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        val_cfg={},
        val_evaluator=Evaluator([]),
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.1}},
        param_scheduler={
            "type": "MultiStepLR",
            "by_epoch": loop == "epochs",
            "milestones": [2, 9],
            "gamma": 0.5,
        },
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 7}},
        randomness={"seed": 3},
        default_scope="mmengine",
        log_level="ERROR",
        experiment_name=f"{folder.name}_{loop}_{workers}",
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("loop", LOOPS)
def test_interrupted_is_uninterrupted(tmp_path: Path, loop: str, workers: int) -> None:
    """A resumed fine-tuning would drop, repeat or reorder images, or augment and drop out otherwise: another result."""
    whole = drawing_runner(tmp_path / "whole", loop, workers)
    whole.train()
    rest = drawing_runner(tmp_path / "rest", loop, workers)
    rest.resume(str(tmp_path / "whole/iter_7.pth"))
    rest.train()
    assert (rest.iter, rest.epoch) == (whole.iter, whole.epoch) and len(whole.model.seen) == 15
    assert rest.model.seen == whole.model.seen[7:]
    assert torch.equal(rest.model.weight, whole.model.weight)
    assert rest.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    assert whole.optim_wrapper.get_lr()["lr"] == pytest.approx([0.05 if loop == "epochs" else 0.025])
    assert len(set(whole.model.seen)) == 15


def test_a_cut_epoch_goes_on(tmp_path: Path) -> None:
    """train_cfg.max_iters=3 and then --resume would leave out the other images of the epoch."""
    whole = runner(tmp_path / "whole", None)
    whole.train()
    cut = runner(tmp_path / "cut", 7)
    cut.train()
    rest = runner(tmp_path / "cut", None)
    rest.resume(str(tmp_path / "cut/latest.pth"))
    assert (rest.iter, rest.epoch) == (7, 1)
    rest.train()
    assert cut.model.seen + rest.model.seen == whole.model.seen == [float(i % 5) for i in range(15)]
    assert torch.equal(rest.model.weight, whole.model.weight)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_is_a_function_of_its_place(workers: int) -> None:
    """The number of workers would change the augmentation, or every pass over the images would have the same one."""
    data = Augmented()

    def passes(count: int) -> list[list[float]]:
        plain: Any = torch.utils.data.DataLoader(
            data, batch_size=2, sampler=DefaultSampler(data, shuffle=False), num_workers=count
        )
        batches = StepBatches(plain.batch_sampler, endless=False)
        loader: Any = numbered(plain, batches)
        vars(loader.dataset)["run_seed"] = 1
        found = []
        for epoch in (0, 1):
            batches.start(3 * epoch, epoch, skipped=0)
            found.append([x for batch in loader for x in batch["x"].tolist()])
        batches.start(4, 1, skipped=1)
        return [*found, [x for batch in loader for x in batch["x"].tolist()]]

    first, second, rest = passes(workers)
    assert [first, second, rest] == passes(1)
    assert [int(x) for x in first] != first and first != second and second[2:] == rest


def test_each_pass_has_its_own_order() -> None:
    """A finite sampler would give the same order again and again, or another one after a resume."""
    sampler = DefaultSampler(range(50), shuffle=True, seed=0)
    batches = StepBatches(torch.utils.data.BatchSampler(sampler, 50, drop_last=False), endless=True)
    first, second, third = ([place.sample for place in batch] for batch in islice(batches, 3))
    assert first != second != third != first and sorted(first) == sorted(second) == list(range(50))
    batches.start(1, 1, skipped=0)
    (resumed,) = islice(batches, 1)
    assert resumed == [Place(1, place, sample) for place, sample in enumerate(second)]


def test_a_hook_reaches_the_data_set() -> None:
    """A hook that switches the augmentation for the last epochs would set it where nobody reads it."""
    data: Any = Samples()
    samples = SeededSamples(data)
    samples.pipeline = "weak"
    assert data.pipeline == samples.pipeline == "weak" and not hasattr(samples, "absent")
