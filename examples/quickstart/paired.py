"""mIoU from confusion counts, and how sure a difference between two arms is: a paired bootstrap over scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class PairedDifference:
    """A difference in per cent points and its 95 % interval."""

    value: float
    low: float
    high: float


def mean_iou(confusion: np.ndarray) -> np.ndarray:
    """mIoU in per cent from counts [..., C, C] (true class by predicted class), over the classes that occur.

    Returns:
        [...] float64; a class that neither occurs nor is predicted does not count.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    union = confusion.sum(-1) + confusion.sum(-2) - hit
    iou = np.divide(hit, union, out=np.full(hit.shape, np.nan), where=union > 0)
    return 100 * np.nanmean(iou, -1)


def difference(
    first: np.ndarray, second: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference:
    """mIoU of ``second`` less that of ``first``, both [scenes, C, C] of the same scenes.

    The interval comes from drawing as many scenes with replacement, the same ones for both.

    Raises:
        ValueError: Different scenes or classes.
    """
    if first.shape != second.shape:
        raise ValueError(f"not of the same scenes: {first.shape} and {second.shape}")
    scenes = len(first)
    draws = np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)
    sums = [
        (draws.astype(np.float64) @ arm.reshape(scenes, -1)).reshape(-1, *arm.shape[1:])
        for arm in (first, second)
    ]
    values = mean_iou(sums[1]) - mean_iou(sums[0])
    low, high = np.percentile(values, [2.5, 97.5])
    return PairedDifference(float(mean_iou(second.sum(0)) - mean_iou(first.sum(0))), float(low), float(high))
