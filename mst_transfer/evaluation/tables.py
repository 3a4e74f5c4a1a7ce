"""Per-class tables as plain text, per cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .coco_scores import CocoScores
from .segmentation_scores import SegmentationScores

MOST_ROWS = 80  # classes; the rest is in the files
OVERALL = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def coco_table(scores: CocoScores, baseline: CocoScores | None = None) -> str:
    """AP by class and object size, and the trivial baseline's AP; '-' where the ground truth has no such object."""
    columns = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "baseline")
    trivial = baseline.per_class if baseline else None
    rows = [
        [name, *map(per_cent, values.values()), per_cent(_of(trivial, name, "AP"))]
        for name, values in scores.per_class.items()
    ]
    overall = [scores.statistics[name] for name in OVERALL]
    mean = baseline.statistics["mAP"] if baseline else None
    return text_table(["class", *columns], rows, ["mean", *map(per_cent, [*overall, mean])])


def segmentation_table(scores: SegmentationScores, baseline: SegmentationScores | None = None) -> str:
    """IoU, accuracy and share of the labelled pixels by class, and the trivial baseline's IoU; '-' where a class does
    not occur."""
    trivial = baseline.per_class if baseline else None
    rows = [
        [
            name,
            *(per_cent(values[key]) for key in ("IoU", "Acc", "share")),
            per_cent(_of(trivial, name, "IoU")),
        ]
        for name, values in scores.per_class.items()
    ]
    mean = ["mean", per_cent(scores.mean_iou), per_cent(scores.mean_accuracy), ""]
    mean.append(per_cent(baseline.mean_iou if baseline else None))
    return text_table(["class", "IoU", "Acc", "pixels", "baseline"], rows, mean)


def per_cent(value: float | None) -> str:
    """A fraction with two digits."""
    return "-" if value is None else f"{100 * value:.2f}"


def _of(values: Mapping[str, Mapping[str, float | None]] | None, name: str, key: str) -> float | None:
    return values.get(name, {}).get(key) if values else None


def text_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    last: Sequence[str],
    where: str = "the report's JSON file",
) -> str:
    """Columns with equal widths: the first to the left, the others to the right, ``last`` below a line.

    Args:
        header: Titles.
        rows: Of these at most 80 are shown.
        last: The row of the mean.
        where: The rest of the rows is.
    """
    left_out = len(rows) - MOST_ROWS
    rows = rows[:MOST_ROWS]
    widths = [max(len(line[column]) for line in (header, *rows, last)) for column in range(len(header))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in (header, *rows, last)
    ]
    rule = "-" * sum(widths, 2 * (len(widths) - 1))
    more = [f"... and {left_out} more classes, which are in {where}"] if left_out > 0 else []
    return "\n".join([lines[0], rule, *lines[1:-1], *more, rule, lines[-1]])
