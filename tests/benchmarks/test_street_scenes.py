"""The street-scene comparison goes through, is not repeated, and refuses runs that were not alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import street_scenes
from benchmarks.street_scenes import StreetScenes, main
from benchmarks.study.jobs import Jobs
from benchmarks.study.street_report import check_optimizers, differences, prior_scores
from mst_pretrain.checkpoint_io import load_state_dict
from mst_pretrain.config import load_config
from mst_pretrain.errors import UserError
from mst_pretrain.evaluation.backbone import file_sha256
from mst_transfer.comparison.optimizer import optimizer_table, table_differences
from mst_transfer.comparison.table import TASKS, Cell, Column, Table
from mst_transfer.data import street
from mst_transfer.data.baselines import cityscapes_position_prior

SHORT = ["train_cfg.max_iters=1", "train_dataloader.batch_size=2"]


def test_a_process_that_fails_or_takes_too_long(tmp_path: Path) -> None:
    """A failed run would count as finished, or run on after the time is up."""
    jobs, log = Jobs(), tmp_path / "log"
    assert jobs.call(["-c", "print('said')"], log, float("inf")) and log.read_text() == "said\n"
    with pytest.raises(UserError, match="ended with code 3"):
        jobs.call(["-c", "raise SystemExit(3)"], log, float("inf"))
    assert not jobs.call(["-c", "import time; time.sleep(60)"], log, deadline=0.0)


def test_the_optimizers_table_tells_every_difference() -> None:
    """Arms that train a parameter at another rate, decay or size, or not at all, would be called equal."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    names = [name for name, _ in model.named_parameters()]

    def table(**changes: Any) -> dict[str, dict[str, Any]]:
        """Of AdamW with the second layer's weight in a group of its own, the first's bias left out."""
        groups = [{"params": [model[0].weight, model[1].bias]}, {"params": [model[1].weight], **changes}]
        return optimizer_table(model, torch.optim.AdamW(groups, lr=0.5, weight_decay=0.25))

    whole = table()
    assert list(whole) == [name for name in names if name != "0.bias"]
    assert whole["1.weight"] == {"lr": 0.5, "weight_decay": 0.25, "shape": [1, 2]}
    assert table_differences(whole, table()) == []
    assert table(lr=0.125, initial_lr=0.5) == whole  # warm-up has begun: the rate before it counts
    assert table_differences(whole, table(lr=0.125)) == ["1.weight: lr 0.5 and 0.125"]
    assert table_differences(table(weight_decay=0.0), whole) == ["1.weight: weight_decay 0.0 and 0.25"]
    other = {name: {**row, "shape": [9]} for name, row in whole.items() if name == "0.weight"}
    assert table_differences(whole, {**whole, **other}) == ["0.weight: shape [2, 3] and [9]"]
    fewer = {name: row for name, row in whole.items() if name != "1.bias"}
    assert table_differences(whole, fewer) == table_differences(fewer, whole)
    assert table_differences(whole, fewer) == ["1.bias: only in one of the two"]


def test_differences_are_paired_by_seed() -> None:
    """A seed that only one row has would count, or the sign be turned round."""
    scores = {"random": {1: 20.0, 2: 30.0, 3: 90.0}, "DINO": {1: 21.0, 2: 33.0}}
    cells = {
        row: Cell([{"run": {"seed": s}, "metrics": {"mIoU": v}} for s, v in runs.items()])
        for row, runs in scores.items()
    }
    column = Column("upernet")
    table = Table(TASKS[1], [column], list(cells), {(column, row): cell for row, cell in cells.items()})
    (pair,) = differences(table, ["random", "DINO"])
    assert (pair["of"], pair["minus"], pair["by_seed"]) == ("DINO", "random", {"1": 1.0, "2": 3.0})
    assert pair["mean"] == 2.0 and pair["spread"] == pytest.approx(2**0.5)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tool: Any, forget_engine: Any) -> list[list[str]]:
    """What was called, each in this process instead of one of its own."""
    called: list[list[str]] = []

    def call(self: Jobs, arguments: list[str], log: Path, deadline: float) -> bool:
        called.append(arguments)
        forget_engine()
        tool(Path(arguments[0]).stem).main(list(arguments[1:]))
        return True

    monkeypatch.setattr(Jobs, "call", call)
    return called


@pytest.fixture
def real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawn scenes in the place of CamVid; its test frames are the val frames."""
    street.generate(tmp_path / "drawn", seed=1, train=4, val=2, height=60, width=80)
    root = tmp_path / "camvid-as-cityscapes"
    shutil.copytree(tmp_path / "drawn/cityscapes", root)
    for folder in ("leftImg8bit", "gtFine"):
        shutil.copytree(root / folder / "val", root / folder / "test")
    monkeypatch.setenv("MST_REAL_DATA", str(tmp_path))
    return root
