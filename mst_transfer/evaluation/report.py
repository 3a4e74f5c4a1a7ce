"""What a test leaves behind: its metrics, one JSON report, the confusion matrix as picture and table."""

from __future__ import annotations

import csv
import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mst_pretrain.runtime.atomic import file_sha256, replacing, write_json
from mst_pretrain.runtime.environment import environment_info

from .iou_metric import MSTIoUMetric
from .segmentation_scores import SegmentationScores


def write_report(
    work_dir: str | Path, metrics: Sequence[Any], settings: dict[str, Any], speed: dict[str, Any]
) -> list[Path]:
    """Write ``test_report.json``, and ``confusion_matrix.png`` and ``.csv`` for label maps.

    Args:
        work_dir: Receives the files.
        metrics: The evaluator's metrics after the evaluation.
        settings: ``config``, ``checkpoint`` and whatever else the test was run with.
        speed: :meth:`SpeedHook.summary`.

    Returns:
        The files.
    """
    report = {
        **settings,
        "checkpoint_sha256": file_sha256(settings["checkpoint"]),
        **environment_info(),
        "speed": speed,
        "scores": [metric.report for metric in metrics if getattr(metric, "report", None)],
    }
    path = Path(work_dir, "test_report.json")
    write_json(report, path)
    files = [path]
    for metric in metrics:
        if isinstance(metric, MSTIoUMetric) and metric.scores is not None:
            for ending, write in ((".csv", write_confusion_csv), (".png", draw_confusion)):
                files.append(Path(work_dir, f"confusion_matrix{ending}"))
                write(metric.scores, files[-1])
    return files


def write_metrics(
    metrics: dict[str, Any], work_dir: str | Path, baseline: dict[str, float] | None = None
) -> Path:
    """Print the test's mAP or mIoU in per cent, and write all metrics to ``work_dir/test_metrics.json``."""
    path = Path(work_dir, "test_metrics.json")
    plain = {key: float(value) for key, value in metrics.items() if isinstance(value, numbers.Real)}
    write_json(plain, path)
    print(f"{', '.join(_shown(plain))} (per cent; all: {path})", flush=True)
    if baseline:
        print(f"trivial baseline: {', '.join(_shown(baseline))} (per cent)", flush=True)
    return path


def _shown(metrics: dict[str, float]) -> list[str]:
    """``bbox mAP 12.50`` and so on, in per cent: mmdet's mAP is a fraction, mmseg's scores are per cent."""
    scales = {"coco/bbox_mAP": 100, "coco/segm_mAP": 100, "mIoU": 1, "mAcc": 1, "aAcc": 1}
    return [
        f"{key.removeprefix('coco/').replace('_', ' ')} {scale * metrics[key]:.2f}"
        for key, scale in scales.items()
        if key in metrics
    ]


def write_confusion_csv(scores: SegmentationScores, path: Path) -> None:
    """Pixels; a row per true class, a column per predicted class."""
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["truth \\ prediction", *scores.classes])
        writer.writerows(
            [name, *row] for name, row in zip(scores.classes, scores.matrix.tolist(), strict=True)
        )


def draw_confusion(scores: SegmentationScores, path: Path) -> None:
    """A square per pair of classes: the share of the true class's pixels in per cent; grey without any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    share = 100 * scores.shares
    count = len(scores.classes)
    side = 2.2 + 0.42 * count
    figure = Figure(figsize=(side + 0.6, side), dpi=130, layout="constrained")
    axis = figure.add_subplot()
    axis.set_facecolor("0.85")
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axis.set_xticks(range(count), scores.classes, rotation=90)
    axis.set_yticks(range(count), scores.classes)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.set_title("Pixels of each true class, per cent")
    for row, column in np.argwhere(np.nan_to_num(share) >= 0.5):
        value = share[row, column]
        color = "w" if value > 55 else "k"
        axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, ax=axis, shrink=0.8)
    with replacing(path) as part:
        FigureCanvasAgg(figure).print_png(part)
