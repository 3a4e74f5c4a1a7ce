"""IoU and accuracies from a confusion matrix, counted exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
    predicted, true = (torch.from_numpy(labels.astype(np.int64)) for labels in (prediction, truth))
    return matrix_of(count_pixels(predicted, true, num_classes, ignore_index), num_classes)


def count_pixels(prediction: Tensor, truth: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """What :func:`matrix_of` makes a confusion matrix of, on the device of the maps, which is not waited for.

    Args:
        prediction: Labels [H, W], integer.
        truth: Labels [H, W], integer, on the same device.
        num_classes: C.
        ignore_index: Label of true pixels that do not count.

    Returns:
        int64 [C * C + 4]: pixels by true and predicted class, then the least and the largest label of the truth where
        it counts, and of the prediction.

    Raises:
        ValueError: The maps differ in shape.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and ground truth {tuple(truth.shape)} differ in shape"
        )
    ignored = truth == ignore_index
    extremes = torch.stack([*truth.masked_fill(ignored, 0).aminmax(), *prediction.aminmax()]).long()
    pairs = num_classes**2
    index = torch.add(prediction.long(), truth, alpha=num_classes)
    index = index.masked_fill_(ignored, pairs).clamp_(0, pairs).flatten()
    # bincount would wait for a GPU, to learn the largest index
    counts = index.new_zeros(pairs + 1).scatter_add_(0, index, index.new_ones(1).expand_as(index))
    return torch.cat([counts[:-1], extremes])


def matrix_of(counts: Tensor, num_classes: int) -> np.ndarray:
    """The confusion matrix, int64 [C, C], of :func:`count_pixels`.

    Raises:
        ValueError: A label outside its range.
    """
    *extremes, pixels = *counts[-4:].tolist(), counts[:-4].numpy()
    for name, least, largest in (("ground truth", *extremes[:2]), ("prediction", *extremes[2:])):
        if least < 0 or largest >= num_classes:
            strange = least if least < 0 else largest
            raise ValueError(f"the {name} has label {strange}, known are 0..{num_classes - 1}")
    return pixels.reshape(num_classes, num_classes)


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
