"""What two processes of a pretraining send each other in a step, by number and bytes.

This file is its own worker: ``python test_collectives.py FOLDER``, with torchrun's variables, is one of the two.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.profiler import ProfilerActivity, profile

from mst_pretrain.runtime.config import load_config
from mst_pretrain.training.launch import prepare, run
from mst_pretrain.training.schedule_and_teacher import unwrap
from tests.forked import outputs_of, two

FIRST, LAST = 2, 3  # the iterations that are watched, from 0
STOP_OR_REPLACED = 2  # numbers: was a process asked to stop, how many images did it replace


class CollectivesRecorder(Hook):
    """All that gloo was asked to do in some iterations, as PyTorch's profiler saw it: DDP's own calls too."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == FIRST:
            self.profiler.start()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter == LAST:
            self.profiler.stop()

    @property
    def calls(self) -> list[tuple[str, str, int]]:
        """Name, type and number of elements of each."""
        assert self.profiler.profiler is not None
        events = self.profiler.profiler.kineto_results.events()
        found = sorted(
            (event for event in events if event.name().startswith("gloo:")), key=lambda e: e.start_ns()
        )
        return [
            (event.name(), *event.dtypes(), sum(torch.Size(shape).numel() for shape in event.shapes()))
            for event in found
        ]


def work(folder: Path) -> None:
    """One of two processes: a whole run, as tools/train.py makes it."""
    torch.set_num_threads(1)
    cfg = load_config(folder / "config.py")
    prepare(cfg, Namespace(config="config.py", launcher="none", work_dir=str(folder / "run")))

    def train(runner: Any) -> None:
        recorder = CollectivesRecorder()
        runner.register_hook(recorder)
        runner.train()
        model = unwrap(runner)
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        result = {"calls": recorder.calls, "trained": trained, "center": model.distillation.center.numel()}
        (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(result))

    run(cfg, train)


def test_a_step_sends_its_gradients_the_centre_and_two_numbers(
    toy_config: Callable[..., Config], tmp_path: Path
) -> None:
    """A hook, a log line, a micro-batch or a skipped step's decision would make all processes wait once more.

    The gradients of this model are one bucket of DDP; every step is logged.
    """
    cfg = toy_config(train_dataloader__batch_size=2, train_cfg__accumulate=2, train_cfg__max_epochs=3)
    cfg.pop("evaluation")  # before a measurement, a few steps of ten epochs also send their features
    cfg.dump(tmp_path / "config.py")
    outputs_of(two(__file__, str(tmp_path)))
    for rank in range(2):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result["calls"] == [
            ["gloo:all_reduce", "float", count]  # 4 bytes each
            for _ in range(FIRST, LAST + 1)
            for count in (result["trained"], result["center"], STOP_OR_REPLACED)
        ]


if __name__ == "__main__":
    work(Path(sys.argv[1]))
