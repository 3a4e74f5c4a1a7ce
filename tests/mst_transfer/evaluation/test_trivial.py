"""The baselines that metrics compute from the training split, beside hand-computed ones, and the tables with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mst_transfer.evaluation import MSTIoUMetric, SegmentationScores
from mst_transfer.evaluation.baselines import PositionPrior
from mst_transfer.evaluation.tables import segmentation_table, text_table
from mst_transfer.evaluation.trivial import baseline_metrics, frequent_boxes_of, give_baselines


class Boxes:
    """A data set as mmdet's gives its objects."""

    metainfo: ClassVar[dict[str, Any]] = dict(classes=("car", "bus"))
    objects = (("car", 0, [10, 10, 30, 30]), ("car", 0, [10, 10, 30, 30]), ("bus", 0, [0, 0, 100, 50]))

    def __len__(self) -> int:
        return len(self.objects)

    def get_data_info(self, index: int) -> dict[str, Any]:
        name, ignored, box = self.objects[index]
        label = self.metainfo["classes"].index(name)
        crowd = {"bbox": [0, 0, 100, 100], "bbox_label": 0, "ignore_flag": 1}
        own = {"bbox": box, "bbox_label": label, "ignore_flag": ignored}
        return {"width": 100, "height": 50, "instances": [own, crowd]}


def test_boxes_of_a_training_set_by_hand() -> None:
    """Crowds, another class's boxes or pixels instead of shares of the image would make the bar."""
    found = frequent_boxes_of([Boxes()]).boxes
    assert found["car"][0] == pytest.approx([0.1, 0.2, 0.3, 0.6]) and found["car"][1] == pytest.approx(2 / 3)
    assert found["bus"][0] == pytest.approx([0, 0, 1, 1]) and found["bus"][1] == pytest.approx(1 / 3)


def test_position_prior_beside_the_model_in_the_metric() -> None:
    """The segmentor's IoU would be counted for the prior's, or the prior at another size than the label map."""
    metric = MSTIoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    metric.prior = lambda: PositionPrior(np.array([[0, 1]], np.uint8))
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]])
    sample = {
        "img_path": "x.png",
        "pred_sem_seg": {"data": 1 - truth[None]},
        "gt_sem_seg": {"data": truth[None]},
    }
    metric.process({}, [sample])
    metrics = metric.evaluate(1)
    assert metrics["mIoU"] == 0
    assert metric.baseline is not None and metric.baseline.matrix.tolist() == [[4, 1], [0, 3]]
    assert baseline_metrics([metric])["mIoU"] == pytest.approx(100 * (4 / 5 + 3 / 4) / 2)
    assert metric.matrices is not None and metric.matrices.tolist() == [[[0, 5], [3, 0]]]
    assert metric.report["baseline"]["per_class"]["a"]["IoU"] == pytest.approx(4 / 5)


def test_every_row_has_its_baseline() -> None:
    """A gain below the trivial baseline would be read as one."""
    own = SegmentationScores(np.array([[3, 1], [0, 4]]), ("road", "sky"))
    trivial = SegmentationScores(np.array([[4, 0], [4, 0]]), ("road", "sky"))
    lines = segmentation_table(own, trivial).splitlines()
    assert [line.split()[-1] for line in lines if line[0] != "-"] == ["baseline", "50.00", "0.00", "25.00"]
    assert [line.split()[-1] for line in segmentation_table(own).splitlines()[2:4]] == ["-", "-"]


def test_tables_of_many_classes_are_cut() -> None:
    """The mean of a thousand classes could not be found on the screen."""
    rows = [[f"c{i}", "1.00"] for i in range(81)]
    lines = text_table(["class", "AP"], rows, ["mean", "1.00"], "metrics.json").splitlines()
    assert (
        "... and 1 more classes, which are in metrics.json" in lines and len(lines) == 1 + 1 + 80 + 1 + 1 + 1
    )
    assert "more" not in text_table(["class", "AP"], rows[:80], ["mean", "1.00"])


def test_no_training_split_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A config for testing alone would crash, or its table lack the baseline without a word."""
    cfg = Config(dict(test_dataloader=dict()))
    metrics = [MSTIoUMetric(), SimpleNamespace()]
    give_baselines(metrics, cfg)
    assert metrics[0].prior() is None and metrics[0].prior() is None  # type: ignore[attr-defined]
    assert capsys.readouterr().out.count("no trivial baseline") == 1
