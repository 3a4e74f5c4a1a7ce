"""The printed lines, letter by letter."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mst_pretrain.training.lines import (
    data_warning,
    duration,
    eval_line,
    loss_terms,
    rate,
    scores_of,
    train_line,
)

PRETRAIN = {
    "step": 1200,
    "total": 112_500,
    "loss": 5.431,
    "loss_ce": 4.97,
    "loss_rec": 0.46,
    "teacher_entropy": 3.0,
    "lr": 4.9e-4,
    "images_per_second": 342.2,
    "memory_gb": 6.94,
    "eta_seconds": 87 * 60.0,
}
DETECTION = {
    "step": 400,
    "total": 11_286,
    "loss": 1.21,
    "loss_rpn_cls": 0.2,
    "loss_rpn_bbox": 0.08,
    "loss_cls": 0.42,
    "loss_bbox": 0.51,
    "acc": 90.0,
    "lr": 5e-5,
    "images_per_second": 9.58,
    "memory_gb": None,
    "eta_seconds": 76 * 60.0,
}


def test_a_line_of_pretraining() -> None:
    """What the documentation shows would not be what is printed."""
    assert train_line("pretrain", PRETRAIN, "healthy") == (
        "pretrain  step  1,200/112,500  1.1 %  loss 5.43 (match 4.97, restore 0.46)  lr 4.9e-04  342 img/s  "
        "mem 6.9 GB  ETA 1 h 27 min  healthy"
    )


def test_a_line_of_detection() -> None:
    """The two terms of the region proposals would stand apart, or a score be taken for a loss."""
    assert train_line("detection", DETECTION) == (
        "detection step    400/11,286   3.5 %  loss 1.21 (cls 0.42, box 0.51, rpn 0.28)  lr 5.0e-05  9.6 img/s  "
        "ETA 1 h 16 min"
    )


def test_a_line_of_what_is_not_known_yet() -> None:
    """A loss that is not finite would be left out, or the first line wait for a rate."""
    values = {"step": 1, "total": 10, "loss": None, "loss_ce": None}
    assert train_line("segmentation", values) == "segmentation step      1/10       10.0 %  loss not finite"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (("loss_cls", "loss_bbox", "loss_mask", "loss_rpn_cls"), ("cls", "box", "rpn", "mask")),
        (("s0.loss_cls", "s1.loss_cls", "s0.acc", "s0.loss_mask"), ("cls", "mask")),
        (("decode.loss_ce", "aux.loss_ce", "decode.acc_seg"), ("decode", "aux")),
        (("loss_new", "loss_rec"), ("restore", "new")),
    ],
)
def test_names_of_losses(keys: tuple[str, ...], names: tuple[str, ...]) -> None:
    """A reader would see names of the code."""
    assert tuple(loss_terms(dict.fromkeys(keys, 1.0))) == names


def test_terms_of_one_name_are_added() -> None:
    """The terms would not add up to the loss."""
    values = {"loss": 2.0, "s0.loss_cls": 0.5, "s1.loss_cls": 0.25, "loss_scale": 512.0, "decode.loss_a": 1.0}
    assert loss_terms(values) == {"cls": 0.75, "decode": 1.0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (44.6, "45 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1 h"),
        (5220, "1 h 27 min"),
        (48 * 3600, "2 d"),
        (76.2 * 3600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """An hour would be shown as 60 minutes, or as 0 h."""
    assert duration(seconds) == text


def test_rates() -> None:
    """A slow machine would show 0 images a second."""
    shown = [rate(value) for value in (1234.5, 99.97, 99.9, 9.58, 0.012)]
    assert shown == ["1,234 img/s", "100 img/s", "99.9 img/s", "9.6 img/s", "0.012 img/s"]


BOXES = {"coco/bbox_mAP": 0.1239, "coco/bbox_mAP_50": 0.279, "coco/bbox_mAP_s": -1.0, "coco/bbox_mAP_l": 0.2}


def test_lines_of_validations() -> None:
    """A fraction would be printed where per cent is said, or the best checkpoint not be named."""
    scores = scores_of(BOXES)
    assert scores == {"AP": pytest.approx(12.39), "AP50": pytest.approx(27.9), "AP_l": pytest.approx(20.0)}
    assert eval_line(752, 11_286, scores, "best", "checkpoints/best.pth") == (
        "          eval    752/11,286  AP 12.4  AP50 27.9  (best)   saved checkpoints/best.pth"
    )
    worse = "          eval  1,504/11,286  AP 12.4  AP50 27.9  (best 13.0 at step 752)"
    assert eval_line(1504, 11_286, scores, "best 13.0 at step 752") == worse


def test_boxes_and_masks_have_names_of_their_own() -> None:
    """The AP of boxes would be taken for that of masks."""
    both = {**BOXES, **{name.replace("bbox", "segm"): value / 2 for name, value in BOXES.items()}}
    line = eval_line(1, 2, scores_of(both), "")
    assert line.endswith("mask AP 6.2  mask AP50 14.0  box AP 12.4  box AP50 27.9")


def test_scores_of_segmentation_are_per_cent_already() -> None:
    """mIoU would be a hundred times too large."""
    metrics: dict[str, Any] = {"aAcc": 90.0, "mIoU": 45.25, "mAcc": 60.0, "table": "text"}
    assert list(scores_of(metrics).items()) == [("mIoU", 45.25), ("aAcc", 90.0), ("mAcc", 60.0)]
    assert math.isclose(scores_of({"coco/segm_mAP": 0.5})["AP"], 50.0)


def test_the_warning_about_images() -> None:
    """The user would not read which number of workers was too small."""
    assert data_warning(0.1234, 4) == (
        "12 % of the time is spent waiting for images. Raise --workers (now 4), or copy the data to a local disk."
    )
