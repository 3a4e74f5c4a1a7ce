"""Per-class tables as plain text, per cent."""

from __future__ import annotations

from collections.abc import Sequence

from .coco_scores import CocoScores
from .segmentation_scores import SegmentationScores


def coco_table(scores: CocoScores) -> str:
    """AP by class and object size; '-' where the ground truth has no such object."""
    columns = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    rows = [[name, *map(per_cent, values.values())] for name, values in scores.per_class.items()]
    overall = [scores.statistics[name] for name in ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")]
    return _table(["class", *columns], [*rows, ["mean", *map(per_cent, overall)]])


def segmentation_table(scores: SegmentationScores) -> str:
    """IoU, accuracy and share of the labelled pixels by class; '-' where a class does not occur."""
    rows = [
        [name, per_cent(values["IoU"]), per_cent(values["Acc"]), per_cent(values["share"])]
        for name, values in scores.per_class.items()
    ]
    mean = ["mean", per_cent(scores.mean_iou), per_cent(scores.mean_accuracy), ""]
    return _table(["class", "IoU", "Acc", "pixels"], [*rows, mean])


def per_cent(value: float | None) -> str:
    """A fraction with two digits."""
    return "-" if value is None else f"{100 * value:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in (header, *rows)
    ]
    rule = "-" * sum(widths, 2 * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
