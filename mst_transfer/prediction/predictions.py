"""What is predicted of an image, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one image, N instances by falling score.

    Attributes:
        image: The file, or None for an array.
        classes: Names by label.
        boxes: float32 [N, 4], left, top, right, bottom in pixels of the image.
        scores: float32 [N] in [0, 1].
        labels: int64 [N].
        masks: bool [N, H, W], or None from a model without masks.
        height: H.
        width: W.
        mask_scores: float32 [N] where the model scores its masks apart, else None.
    """

    image: Path | None
    classes: tuple[str, ...]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    height: int
    width: int
    mask_scores: np.ndarray | None = None


@dataclass(frozen=True)
class Segmentation:
    """The class of every pixel of one image.

    Attributes:
        image: The file, or None for an array.
        classes: Names by label.
        mask: uint8 [H, W], class of every pixel in the image's own size; uint16 of more than 256 classes.
    """

    image: Path | None
    classes: tuple[str, ...]
    mask: np.ndarray

    @property
    def probabilities(self) -> dict[str, float]:
        """Share of the image's pixels by class, in [0, 1]."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes))
        return {name: float(count / self.mask.size) for name, count in zip(self.classes, counts, strict=True)}

    @property
    def shares(self) -> dict[str, float]:
        """The former name of :attr:`probabilities`."""
        return self.probabilities

    @property
    def label_map(self) -> np.ndarray:
        """The former name of :attr:`mask`."""
        return self.mask


Prediction = Detections | Segmentation
