"""A fine-tuning that began in one process goes on in two: the same images, augmented alike, the same weights.

This file is its own worker: ``python test_other_processes.py FOLDER RANK`` continues as one of the two.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import Tensor, distributed, nn
from torch.utils.data import BatchSampler

import mst_transfer.training.loops  # noqa: F401  registers the loops
from mst_pretrain.training.runner import MSTRunner, build_runner
from mst_transfer.training.resume import Place, StepBatches
from tests.forked import outputs_of, two_workers

IMAGES, BATCH, STOP, END = 10, 4, 4, 9  # an epoch has steps of 4, 4 and 2 images
CASES = {
    "epochs": ({"type": "CappedEpochLoop", "max_epochs": 3}, "DefaultSampler", False),
    "epochs, grouped": ({"type": "CappedEpochLoop", "max_epochs": 3}, "DefaultSampler", True),
    "iterations": ({"type": "ExactIterLoop", "max_iters": END, "val_begin": 99}, "InfiniteSampler", False),
    "iterations, grouped": (
        {"type": "ExactIterLoop", "max_iters": END, "val_begin": 99},
        "InfiniteSampler",
        True,
    ),
    "passes": ({"type": "ExactIterLoop", "max_iters": END, "val_begin": 99}, "DefaultSampler", False),
}


@MODELS.register_module()
class RememberingLine(BaseModel):
    """Its loss is a mean over images; it remembers which it saw, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.seen: list[list[int]] = []

    def forward(self, x: Tensor, index: Tensor, mode: str = "tensor") -> Any:
        self.seen.append(index.tolist())
        return {"loss": (x @ self.weight - index).square().mean()}


@DATASETS.register_module()
class UprightAndWide(torch.utils.data.Dataset):
    """Ten samples, every third of them upright; each with something drawn."""

    def __len__(self) -> int:
        return IMAGES

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"width": 2 - (index % 3 == 0), "height": 1 + (index % 3 == 0)}

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.rand(3), "index": index}


def config(folder: Path, case: str, batch: int, **options: Any) -> Config:
    loop, sampler, grouped = CASES[case]
    loader: dict[str, Any] = {
        "dataset": {"type": "UprightAndWide"},
        "batch_size": batch,
        "num_workers": 0,
        "sampler": {"type": sampler, "shuffle": True},
        "collate_fn": {"type": "default_collate"},
    }
    if grouped:
        loader["batch_sampler"] = {"type": "mmdet.AspectRatioBatchSampler"}
    return Config(
        {
            "model": {"type": "RememberingLine"},
            "work_dir": str(folder / case),
            "train_dataloader": loader,
            "train_cfg": dict(loop),
            "optim_wrapper": {"optimizer": {"type": "Adam", "lr": 0.1}},
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": STOP}},
            "randomness": {"seed": 3},
            "default_scope": "mmengine",
            "log_level": "ERROR",
            "experiment_name": f"{folder}_{case}",
            **options,
        }
    )


def trained(cfg: Config) -> MSTRunner:
    import mmdet.datasets.samplers  # noqa: F401  registers the groups

    runner = build_runner(cfg)
    assert isinstance(runner, MSTRunner)
    runner.train()
    return runner


def work(folder: Path, rank: int) -> None:
    """One of two processes, with half of the images of every step."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    wrapper = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    found = {}
    for case in CASES:
        resumed = {"resume": True, "load_from": str(folder / "one" / case / f"iter_{STOP}.pth")}
        cfg = config(
            folder / "two", case, BATCH // 2, **resumed, launcher="pytorch", model_wrapper_cfg=wrapper
        )
        model: Any = trained(cfg).model
        found[case] = {"weight": model.module.weight.detach(), "seen": model.module.seen}
    torch.save(found, folder / f"{rank}.pth")
    distributed.destroy_process_group()


def test_a_fine_tuning_goes_on_in_two_processes(tmp_path: Path) -> None:
    """On the GPUs that are free today, a run would see other images, repeat some, or end elsewhere."""
    pytest.importorskip("mmdet")
    whole: dict[str, Any] = {case: trained(config(tmp_path / "one", case, BATCH)).model for case in CASES}
    outputs_of(two_workers(__file__, tmp_path))
    one, other = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    for case, model in whole.items():
        assert len(model.seen) == END and [len(step) for step in model.seen[:2]] == [4, 4]
        shares = zip(one[case]["seen"], other[case]["seen"], strict=True)
        assert [first + second for first, second in shares] == model.seen[STOP:], case
        for rank in (one, other):
            torch.testing.assert_close(
                rank[case]["weight"], model.weight.detach(), rtol=1e-5, atol=1e-6, msg=case
            )


def share(made: StepBatches, rank: int, processes: int) -> StepBatches:
    """The part that a rank of several processes has of the same steps."""
    made.rank, made.processes = rank, processes
    return made


def grouped(batch: int, endless: bool = False, drop_last: bool = False) -> Any:
    samplers = pytest.importorskip("mmdet.datasets.samplers")
    sampler = (InfiniteSampler if endless else DefaultSampler)(UprightAndWide(), seed=5)
    return samplers.AspectRatioBatchSampler(sampler, batch, drop_last)


@pytest.mark.parametrize("drop_last", [False, True])
def test_one_process_has_mmdets_own_batches(drop_last: bool) -> None:
    """A run that began with an earlier version would go on with other images."""
    for endless in (False, True):
        expected = list(islice(grouped(3, endless, drop_last), 3))
        made = StepBatches(grouped(3, endless, drop_last), endless)
        assert [[place.sample for place in step] for step in islice(made, 3)] == expected
    assert len(StepBatches(grouped(3, drop_last=drop_last), endless=False)) == (3 if drop_last else 4)


def test_groups_stay_what_they_were_at_the_first_start() -> None:
    """A detector's run on two GPUs, continued on one, would pad and see other images together."""
    first = StepBatches(grouped(2), endless=False)
    first.size, first.processes = 4, 2
    steps = [[place.sample for place in step] for step in share(first, 0, 1)]
    assert steps == [[s for part in pairs for s in part] for pairs in _pairs(list(grouped(2)))]
    on_one = StepBatches(grouped(4), endless=False)
    assert [[place.sample for place in step] for step in on_one] != steps
    on_one.group = 2
    assert [[place.sample for place in step] for step in on_one] == steps


def _pairs(batches: list[list[int]]) -> list[list[list[int]]]:
    return [batches[place : place + 2] for place in range(0, len(batches), 2)]


def test_a_short_last_step_is_shared_evenly() -> None:
    """A process without an image would hang all others, or one with fewer weigh its images more."""
    batches = [BatchSampler(DefaultSampler(range(5), shuffle=False), 4, False) for _ in range(4)]
    last = [list(share(StepBatches(made, False), rank, 4))[-1] for rank, made in enumerate(batches)]
    assert last == [[Place(1, place, 4)] for place in range(4)]


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
