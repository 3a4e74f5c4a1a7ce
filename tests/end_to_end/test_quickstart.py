"""The long quickstart (--full), at toy length; the short one is in tests/examples/test_demo.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.quickstart.run import Quickstart, table
from examples.quickstart.sheet import draw_sheet
from examples.quickstart.tasks import Plan, ToolCall
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError
from mst_transfer.data import coco_file
from tests.end_to_end.in_process import tool

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each call of a tool on detection's configs, and how many times it parsed a file of annotations.

    The tools run in this process, but for one stage: starting fifteen processes takes two minutes.
    """
    start, parse, times, counts = Plan.run, coco_file.repaired, list[int](), list[tuple[str, int]]()

    def repaired(content: Any) -> Any:
        times.append(1)
        return parse(content)

    monkeypatch.setattr(coco_file, "repaired", repaired)

    def run(plan: Plan, stage: str, calls: list[ToolCall]) -> None:
        if stage == "MST pretraining":
            return start(plan, stage, calls)
        for call in calls:
            times.clear()
            name, *arguments = call.arguments
            tool(Path(name).stem).main(arguments)
            if "mask_rcnn" in arguments[0]:
                counts.append((name, len(times)))
        plan.begin(stage)
        plan.end()
        return None

    monkeypatch.setattr(Plan, "run", run)
    return counts


def test_without_pretraining_both_arms_are_equal_to_the_last_digit(
    tmp_path: Path, parsed: list[tuple[str, int]]
) -> None:
    """The two columns would differ by something else than the pretrained weights, and reading COCO take minutes."""
    quickstart = Quickstart(ROOT, tmp_path, seed=3, pretrain_epochs=0, max_iters=2, scenes=(32, 3))
    results = quickstart.run()
    assert results["random"] == results["mst"]
    for stage in ("probe", "mask_rcnn", "upernet"):  # the metrics are rounded; the weights are not
        one, other = (load_checkpoint(tmp_path / arm / stage / "latest.pth") for arm in ("random", "mst"))
        weights = one["state_dict"]
        assert all(torch.equal(value, other["state_dict"][name]) for name, value in weights.items()), stage
    assert set(results["mst"]) == {"probe", "bbox_mAP", "segm_mAP", "mIoU"}
    assert set(results["baseline"]) == {"mIoU", "bbox_mAP", "segm_mAP"} and results["seed"] == 3
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert f"| UperNet, mIoU | {results['baseline']['mIoU']:.2f} |" in table(results)
    assert draw_sheet(tmp_path, rows=2).stat().st_size > 10_000
    # a test reads val, and the first one in a process the training boxes of the baseline; a training both
    assert sorted(parsed) == [("tools/test.py", 1), ("tools/test.py", 2), *[("tools/train.py", 2)] * 2]
    assert coco_file._kept is None


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


def test_options_of_the_long_one_need_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody's own data would be left unread, and the table be of drawn scenes."""
    parse = tool("quickstart").parse
    assert parse(["--full", "--images", str(tmp_path)]).images == tmp_path
    assert parse([]).full is False
    for wrong, message in (
        (["--coco", "x"], "--coco belongs to the long demonstration: add --full"),
        (["--pretrain-epochs", "0"], "--pretrain-epochs belongs"),
        (["--seed", "-1"], "--seed -1: give 0 or more"),
    ):
        with pytest.raises(SystemExit, match="2"):
            parse(wrong)
        assert message in capsys.readouterr().err
