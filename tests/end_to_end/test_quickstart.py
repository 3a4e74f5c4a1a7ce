"""The quickstart as a newcomer runs it, at toy length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from examples.quickstart.run import Quickstart, table
from examples.quickstart.sheet import draw_sheet
from examples.quickstart.tasks import Plan, ToolCall
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError
from tests.end_to_end.in_process import tool

ROOT = Path(__file__).parents[2]


@pytest.fixture
def few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools run in this process, but for one stage: starting fifteen processes takes two minutes."""
    start = Plan.run

    def run(plan: Plan, stage: str, calls: list[ToolCall]) -> None:
        if stage == "MST pretraining":
            return start(plan, stage, calls)
        for call in calls:
            tool(Path(call.arguments[0]).stem).main(call.arguments[1:])
        plan.stage += 1
        plan.finished += plan.weights[stage]
        return None

    monkeypatch.setattr(Plan, "run", run)


def test_without_pretraining_both_arms_are_equal_to_the_last_digit(
    tmp_path: Path, few_processes: None
) -> None:
    """The two columns would differ by something else than the pretrained weights."""
    quickstart = Quickstart(ROOT, tmp_path, seed=3, pretrain_epochs=0, max_iters=2, scenes=(32, 3))
    results = quickstart.run()
    assert results["random"] == results["mst"]
    for stage in ("probe", "mask_rcnn", "upernet"):  # the metrics are rounded; the weights are not
        one, other = (load_checkpoint(tmp_path / arm / stage / "latest.pth") for arm in ("random", "mst"))
        weights = one["state_dict"]
        assert all(torch.equal(value, other["state_dict"][name]) for name, value in weights.items()), stage
    assert set(results["mst"]) == {"probe", "bbox_mAP", "segm_mAP", "mIoU"}
    assert set(results["baseline"]) == {"mIoU", "bbox_mAP"} and results["seed"] == 3
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert f"| UperNet, mIoU | {results['baseline']['mIoU']:.2f} |" in table(results)
    assert draw_sheet(tmp_path, rows=2).stat().st_size > 10_000


def test_bad_arguments_stop_before_any_work(tmp_path: Path) -> None:
    """A run would fail after minutes, take an older run's weights, or end in a traceback."""
    (tmp_path / "file").touch()
    bad = {
        "--pretrain-epochs -1": dict(out=tmp_path / "a", pretrain_epochs=-1.0),
        "--pretrain-epochs nan": dict(out=tmp_path / "a", pretrain_epochs=float("nan")),
        "--max-iters 0": dict(out=tmp_path / "a", max_iters=0),
        "--out": dict(out=tmp_path / "file"),
    }
    for message, arguments in bad.items():
        with pytest.raises(UserError, match=message):
            Quickstart(ROOT, **arguments).run()  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()
