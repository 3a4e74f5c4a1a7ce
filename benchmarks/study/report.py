"""From read-outs of every arm and seed to a table and a plot: means, spread, paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from .dense import mean_iou

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESAMPLES = 2000


@dataclass
class ReadOut:
    """What one set of features is worth.

    Attributes:
        knn: [M] bool, per val photo whether k-NN is right.
        linear: [M] bool, the same of the linear classifier.
        confusion: [F, C, C] int64, per val frame of the dense probe.
    """

    knn: Tensor | None
    linear: Tensor | None
    confusion: Tensor

    def scores(self) -> dict[str, float | None]:
        """In per cent."""
        return {
            "knn": None if self.knn is None else 100 * self.knn.double().mean().item(),
            "linear": None if self.linear is None else 100 * self.linear.double().mean().item(),
            "dense": mean_iou(self.confusion.sum(0)).item(),
        }


def bootstrap_difference(one: Tensor, other: Tensor, seed: int = 0) -> tuple[float, float, float]:
    """Paired bootstrap over val images of the difference of two arms, each the mean over its seeds.

    Args:
        one: [S, M] bool (accuracy) or [S, F, C, C] int64 (mIoU).
        other: The same images in the same order; its number of seeds may differ.
        seed: Of the resampling.

    Returns:
        (difference, low, high): one minus other in per cent points, and the 95 % interval.
    """
    images = one.shape[1]
    generator = torch.Generator().manual_seed(seed)

    def score(arm: Tensor, weights: Tensor) -> Tensor:
        """[R, images] counts to [R] scores."""
        if arm.ndim == 2:
            return 100 * (weights @ arm.double().T / images).mean(1)
        return mean_iou(torch.einsum("ri,sicd->rscd", weights, arm.double())).mean(1)

    rows = torch.randint(images, (RESAMPLES, images), generator=generator)
    counts = torch.zeros(RESAMPLES, images, dtype=torch.double).scatter_add_(
        1, rows, torch.ones(RESAMPLES, images, dtype=torch.double)
    )
    once = torch.ones(1, images, dtype=torch.double)
    difference = (score(one, once) - score(other, once)).item()
    low, high = (score(one, counts) - score(other, counts)).quantile(
        torch.tensor([0.025, 0.975], dtype=torch.double)
    )
    return difference, low.item(), high.item()


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    tensor = torch.tensor(values, dtype=torch.double)
    if len(values) == 1:
        return f"{tensor[0]:.2f}"
    return f"{tensor.mean():.2f} ± {tensor.std():.2f}"


def plot(rows: dict[str, list[dict[str, float | None]]], path: Path) -> None:
    """One panel per read-out, one row per arm, one dot per seed."""
    readouts = ["knn", "linear", "dense"]
    titles = {
        "knn": "k-NN, per cent",
        "linear": "linear, per cent",
        "dense": "dense probe, mIoU on CamVid val",
    }
    names = list(rows)
    figure, axes = plt.subplots(1, 3, figsize=(13, 0.45 * len(names) + 1.5), sharey=True)
    for axis, readout in zip(axes, readouts, strict=True):
        for place, name in enumerate(names):
            values = [value for row in rows[name] if (value := row[readout]) is not None]
            axis.plot(values, [place] * len(values), "o", alpha=0.7)
            if values:
                axis.plot([sum(values) / len(values)], [place], "k|", markersize=14)
        axis.set_title(titles[readout])
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
