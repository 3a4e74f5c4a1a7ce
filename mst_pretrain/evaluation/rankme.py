"""RankMe, the effective rank of features: a measure of a pretraining that needs no labels [arXiv 2210.02885]."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7  # the paper's, for float32


class FeatureGram:
    """The sum of z z^T over features z, from which their singular values follow: [D, D] in the place of N rows.

    In float64, so that the square roots of its eigenvalues are as exact as the features are in float32.

    Attributes:
        gram: [D, D] float64, on the features' device; None before the first.
        rows: N.
    """

    def __init__(self, gram: Tensor | None = None, rows: int = 0) -> None:
        self.gram, self.rows = gram, rows

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Add n rows [n, D] of float."""
        exact = features.double()
        own = exact.T @ exact
        self.gram = own if self.gram is None else self.gram.to(own.device) + own
        self.rows += len(features)

    def rankme(self) -> float:
        """The rank, 1 (all features point in one direction) to D (all directions are as strong).

            RankMe = exp(-sum_k p_k log p_k),  p_k = s_k / sum_j s_j + epsilon

        with the singular values s_k of the N x D features, which are neither centred nor normalised.

        Raises:
            ValueError: No feature was added.
        """
        if self.gram is None:
            raise ValueError("there are no features to measure")
        singular = torch.linalg.eigvalsh(self.gram.cpu()).clamp(min=0).sqrt()
        shares = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny) + EPSILON
        return float((-(shares * shares.log()).sum()).exp())
