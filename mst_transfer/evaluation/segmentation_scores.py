"""IoU and accuracies from a confusion matrix, counted exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def confusion_matrix(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Pixels by true class (rows) and predicted class (columns).

    Args:
        prediction: Labels [H, W] in [0, num_classes).
        truth: Labels [H, W] in [0, num_classes) or ``ignore_index``, whose pixels do not count.
        num_classes: C.
        ignore_index: Not counted.

    Returns:
        int64 [C, C].

    Raises:
        ValueError: Another shape, or a label outside its range.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and ground truth {truth.shape} differ in shape")
    counted = truth != ignore_index
    rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, labels in (("ground truth", rows), ("prediction", columns)):
        strange = labels[(labels < 0) | (labels >= num_classes)]
        if strange.size:
            raise ValueError(f"the {name} has label {int(strange[0])}, known are 0..{num_classes - 1}")
    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


@dataclass(frozen=True)
class SegmentationScores:
    """What a confusion matrix says, as fractions in [0, 1].

    A class without a pixel in truth and prediction has no IoU, one without a pixel in truth has no accuracy; both are
    None and no part of the means, as in the official Cityscapes evaluation.

    Attributes:
        matrix: Pixels, int64 [C, C], rows are the truth.
        classes: C names.
    """

    matrix: np.ndarray
    classes: tuple[str, ...]

    @property
    def per_class(self) -> dict[str, dict[str, float | None]]:
        """IoU, accuracy, and share of the true pixels by class."""
        hits, truth, predicted = self.matrix.diagonal(), self.matrix.sum(1), self.matrix.sum(0)
        total = int(self.matrix.sum())
        return {
            name: {
                "IoU": _ratio(hits[i], truth[i] + predicted[i] - hits[i]),
                "Acc": _ratio(hits[i], truth[i]),
                "share": _ratio(truth[i], total),
            }
            for i, name in enumerate(self.classes)
        }

    @property
    def shares(self) -> np.ndarray:
        """Share of the true class's pixels by true class (rows) and predicted class (columns).

        float64 [C, C] in [0, 1]; a row without a pixel is NaN.
        """
        truth = self.matrix.sum(1, keepdims=True)
        return np.divide(self.matrix, truth, out=np.full(self.matrix.shape, np.nan), where=truth > 0)

    @property
    def mean_iou(self) -> float | None:
        """mIoU."""
        return _mean([values["IoU"] for values in self.per_class.values()])

    @property
    def mean_accuracy(self) -> float | None:
        """mAcc."""
        return _mean([values["Acc"] for values in self.per_class.values()])

    @property
    def pixel_accuracy(self) -> float | None:
        """aAcc: share of the labelled pixels that are right."""
        return _ratio(int(self.matrix.trace()), int(self.matrix.sum()))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "mIoU": self.mean_iou,
            "mAcc": self.mean_accuracy,
            "aAcc": self.pixel_accuracy,
            "per_class": self.per_class,
            "confusion_matrix": {
                "rows": "truth",
                "columns": "prediction",
                "classes": list(self.classes),
                "pixels": self.matrix.tolist(),
            },
        }


def _ratio(part: int, whole: int) -> float | None:
    return int(part) / int(whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
