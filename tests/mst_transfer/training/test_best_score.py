"""Which scores may decide on the best checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config

from mst_pretrain.runtime.errors import UserError
from mst_transfer.training.best_score import check_save_best

BOXES = {"type": "MSTCocoMetric", "metric": "bbox"}


def config(save_best: Any, evaluator: Any, **options: Any) -> Config:
    hooks = {"checkpoint": {"type": "CheckpointHook", "save_best": save_best}}
    return Config({"default_hooks": hooks, "val_evaluator": evaluator, **options})


@pytest.mark.parametrize(
    "cfg",
    [
        config("auto", BOXES),
        config(None, None),
        config("coco/bbox_mAP_50", BOXES),
        config(["coco/segm_mAP", "coco/bbox_mAP"], {"type": "MSTCocoMetric"}),
        config("mIoU", [{"type": "mst_transfer.MSTIoUMetric"}]),
        config("AP50", BOXES, run_folder=True),
        config("anything", {"type": "VOCMetric"}),
    ],
)
def test_scores_that_there_are(cfg: Config) -> None:
    """A good config would be refused."""
    check_save_best(cfg)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (
            config("coco/segm_mAP", BOXES),
            r"save_best is 'coco/segm_mAP', which .* not give\. Known are coco/b",
        ),
        (config("AP50", BOXES), r"save_best is 'AP50'"),
        (config("mIOU", {"type": "MSTIoUMetric"}), r"'mIOU'.* Known are aAcc, mIoU, mAcc\."),
        (config("mIoU", None), "nothing is validated. Leave it out"),
    ],
)
def test_scores_that_there_are_not(cfg: Config, message: str) -> None:
    """A run would end at its first validation, hours after its start."""
    with pytest.raises(UserError, match=message):
        check_save_best(cfg)
