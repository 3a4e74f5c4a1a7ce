"""The quickstart as a newcomer runs it, at toy length."""

from __future__ import annotations

import json
from pathlib import Path

from mst_transfer.quickstart.run import Quickstart, table
from mst_transfer.quickstart.sheet import draw_sheet

ROOT = Path(__file__).parents[2]


def test_without_pretraining_both_arms_are_equal_to_the_last_digit(tmp_path: Path) -> None:
    """The two columns would differ by something else than the pretrained weights."""
    quickstart = Quickstart(ROOT, tmp_path, seed=3, pretrain_epochs=0, max_iters=3, scenes=(32, 4))
    results = quickstart.run()
    assert results["random"] == results["mst"]
    assert set(results["mst"]) == {"probe", "bbox_mAP", "segm_mAP", "mIoU"}
    assert set(results["baseline"]) == {"mIoU", "bbox_mAP"} and results["seed"] == 3
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert f"| UperNet, mIoU | {results['baseline']['mIoU']:.2f} |" in table(results)
    assert draw_sheet(tmp_path, rows=2).stat().st_size > 10_000
