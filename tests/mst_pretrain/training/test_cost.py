"""What a run will cost: the arithmetic, and a few real steps on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config

from mst_pretrain.data.multicrop import MultiCrop
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.cost import cost_of, estimate, largest_batch, report
from mst_pretrain.training.single_step import Measured, loader_of, noise
from tests.end_to_end.in_process import tool

GIB = 2**30
IMAGENET = 1_281_167
MEASURED = Measured({128: 0.2, 64: 0.1}, 0.005, {64: 10 * GIB, 128: 18 * GIB}, 80 * GIB, 2 * GIB, IMAGENET)


def config(workers: int = 8, accumulate: int = 1, **length: Any) -> Any:
    loader = SimpleNamespace(batch_size=128, get={"num_workers": workers}.get)
    return SimpleNamespace(
        filename="a.py", train_dataloader=loader, train_cfg={"accumulate": accumulate, **length}
    )


@pytest.mark.parametrize(
    ("workers", "cores", "limit", "seconds"),
    [(8, 64, "step", 0.2), (2, 64, "loader", 0.32), (8, 16, "loader", 0.32), (0, 64, "loader", 0.84)],
)
def test_the_slower_of_step_and_loader_sets_the_pace(
    workers: int, cores: int, limit: str, seconds: float
) -> None:
    """Hours would be promised that the loader cannot keep, with workers that have no core, or with none."""
    cost = estimate(config(workers, max_epochs=300), MEASURED, gpus=8, cores=cores, here=8)
    assert (cost.limit, cost.workers_needed) == (limit, 4)  # 128 images x 5 ms = 0.64 s in each 0.2 s
    assert cost.iteration_seconds == pytest.approx(seconds)
    assert (cost.iterations_per_epoch, cost.iterations) == (1251, 375_300)
    assert cost.hours == pytest.approx(375_300 * seconds / 3600)
    assert cost.gpu_hours == pytest.approx(8 * cost.hours)


def test_accumulated_micro_batches_count() -> None:
    """An iteration's images, and so its loader's time and the epoch's length, would be those of one micro-batch."""
    cost = estimate(config(accumulate=4, max_epochs=2, max_iters=400), MEASURED, gpus=2, cores=64, here=1)
    assert (cost.global_batch, cost.iterations_per_epoch, cost.iterations) == (1024, 1251, 400)
    assert cost.workers_needed == 13  # 4 x 128 images x 5 ms = 2.56 s in each 0.2 s


def test_the_largest_batch_is_on_the_line_through_two() -> None:
    """A batch would be recommended that runs out of memory, with a constant part counted for every image or never."""
    assert largest_batch(MEASURED.peak_bytes, 72 * GIB) == 64 + 62 * 8
    assert largest_batch({128: 18 * GIB}, 72 * GIB) is None
    assert largest_batch({1: GIB, 2: GIB}, 72 * GIB) is None
    one, eight = (estimate(config(max_epochs=1), MEASURED, gpus, 8, 1) for gpus in (1, 8))
    assert (one.largest_batch, one.peak_gib) == (64 + 62 * 8, 18)  # 90 % of 80 GiB
    assert (eight.largest_batch, eight.peak_gib) == (64 + 60 * 8, 20)  # and the buckets of DDP
    small = replace(MEASURED, peak_bytes={16: 2 * GIB, 32: 3 * GIB}, usable_bytes=5 * GIB)
    with pytest.raises(UserError, match="128 does not fit into the GPU's free memory; about 56 images do"):
        estimate(config(max_epochs=1), small, 1, 8, 1)


def test_a_few_steps_are_measured_and_nothing_is_written(
    toy_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate would be of another config than the run's, or claim the work directory of one."""
    seen = []
    micro_batch = MST.train_step
    monkeypatch.setattr(
        MST, "train_step", lambda self, data, w: seen.append(data) or micro_batch(self, data, w)
    )
    cfg = toy_config(train_cfg__accumulate=2, train_cfg__max_epochs=5)
    before = set(Path(cfg.work_dir).parent.iterdir())
    cost = cost_of(cfg, gpus=2, steps=3)
    assert (cost.images, cost.global_batch, cost.iterations) == (17, 16, 5)
    assert cost.load_seconds and cost.step_seconds > 0 and cost.peak_gib > 0.01 and cost.largest_batch is None
    assert len(seen) == (2 + 3) * 2 and "index" in seen[0]  # of the loader
    assert set(Path(cfg.work_dir).parent.iterdir()) == before
    assert "images a step  16 = 4 x 2 (process) x 2" in report(cost)


def test_one_line_of_json_without_images(
    toy_config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that has the GPU but not yet the data could estimate nothing; the line would hold a log."""
    cfg = toy_config()
    arguments = [cfg.filename, "--images", "1000", "--json", "--steps", "1", "--cfg-options"]
    tool("cost").main([*arguments, "data_root=absent", "model.head.prototypes=8"])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["images"], found["iterations"], found["load_seconds"]) == (1000, 1250, None)
    assert found["cfg_options"]["model.head.prototypes"] == 8 and found["assumed"]


@pytest.mark.parametrize(
    ("options", "gpus", "message"),
    [
        ({"data_root": "absent"}, 1, "absent does not exist.*--images N"),
        ({}, 8, "17 images are fewer than one global batch of 32"),
        ({"train_cfg__type": "IterBasedTrainLoop"}, 1, "is not a pretraining config"),
        ({"model__masking__num": 0}, 1, "num"),
    ],
)
def test_what_cannot_be_estimated_is_one_message(
    toy_config: Callable[..., Config], options: dict[str, Any], gpus: int, message: str
) -> None:
    """A missing data set, another kind of config or a wrong value would end in a traceback, after minutes maybe."""
    with pytest.raises(UserError, match=message):
        cost_of(toy_config(**options), gpus)


def test_noise_is_what_the_loader_gives(toy_config: Callable[..., Config]) -> None:
    """Without images the step would be measured on crops of another shape or kind."""
    cfg = toy_config()
    real = next(iter(loader_of(cfg, 4)))
    made = noise(MultiCrop(**cfg.train_dataloader.dataset.crops), 4)
    for name, value in made.items():
        assert (value.shape, value.dtype) == (real[name].shape, real[name].dtype), name
