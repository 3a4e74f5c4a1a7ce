"""A linear head in closed form: ridge regression of class shares on frozen features, from sums alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 0.1  # of the rows' weight; the same for every kind of feature and every number of scenes
# A judgement is made with RIDGE; what this one gives is published beside it. It suits random features better.
WEAK_RIDGE = 0.001


@dataclass
class LinearHead:
    """``scores = features @ weight + bias``.

    Attributes:
        weight: [D, C] float32.
        bias: [C] float32.
    """

    weight: Tensor
    bias: Tensor


class Moments:
    """Weighted sums of features x [D] and targets y [C] over rows, from which :meth:`solve` computes the head.

    Args:
        features: D.
        targets: C.
    """

    def __init__(self, features: int, targets: int) -> None:
        self.total = 0.0
        self.x, self.y = torch.zeros(features, dtype=torch.float64), torch.zeros(targets, dtype=torch.float64)
        self.xx = torch.zeros(features, features, dtype=torch.float64)
        self.xy = torch.zeros(features, targets, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """Add rows x [N, D] and y [N, C] of weight [N], float32, on the CPU or a GPU."""
        x_weighted, y_weighted = x * weight[:, None], y * weight[:, None]
        self.total += float(weight.sum(dtype=torch.float64))
        self.x += x_weighted.sum(0, dtype=torch.float64).cpu()
        self.y += y_weighted.sum(0, dtype=torch.float64).cpu()
        self.xx += (x.T @ x_weighted).double().cpu()
        self.xy += (x.T @ y_weighted).double().cpu()

    def solve(self, ridge: float = RIDGE) -> LinearHead:
        """The head that minimises ``sum of weight |y - z w - b|^2 + ridge (sum of weight) |w|^2``, z: x standardised.

        A feature without any variation gets the weight 0.

        Raises:
            ValueError: No row was added, or ``ridge`` is not positive.
        """
        if self.total <= 0 or ridge <= 0:
            raise ValueError(f"solve needs rows and a positive ridge, got weight {self.total:g} and {ridge}")
        mean, target = self.x / self.total, self.y / self.total
        covariance = self.xx / self.total - torch.outer(mean, mean)
        variance = covariance.diagonal().clamp(min=0)
        varies = variance > 1e-12 + 1e-9 * mean.square()
        inverse = torch.where(varies, variance.clamp(min=1e-30).rsqrt(), 0.0)
        correlation = covariance * torch.outer(inverse, inverse)
        right = (self.xy / self.total - torch.outer(mean, target)) * inverse[:, None]
        correlation.diagonal().add_(ridge)
        weight = torch.linalg.solve(correlation, right) * inverse[:, None]
        return LinearHead(weight.float(), (target - mean @ weight).float())
