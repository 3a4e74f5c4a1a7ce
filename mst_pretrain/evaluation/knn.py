"""Weighted k-nearest-neighbour classification of frozen features [code: DINO]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    neighbours: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    chunk: int = 1024,
) -> dict[int, float]:
    """Top-1 accuracy for several k: cosine similarity, each neighbour votes with exp(similarity / temperature).

    Exact, for any number of classes and test images.

    Args:
        train_features: [N, D] float.
        train_labels: [N] int64, 0 <= label.
        test_features: [M, D] float.
        test_labels: [M] int64.
        neighbours: The values of k; those above N are refused.
        temperature: Of the votes.
        chunk: Test images at a time.

    Returns:
        Per cent correct by k.

    Raises:
        ValueError: No test image, or a k above the number of training images.
    """
    if max(neighbours) > len(train_features) or min(neighbours) < 1:
        raise ValueError(
            f"k must be between 1 and the {len(train_features)} training images, got {list(neighbours)}"
        )
    if not len(test_features):
        raise ValueError("there is no test image")
    train, test = F.normalize(train_features, dim=1), F.normalize(test_features, dim=1)
    classes = int(torch.cat([train_labels, test_labels]).max()) + 1
    correct = dict.fromkeys(neighbours, 0)
    for start in range(0, len(test), chunk):
        similarity, index = (test[start : start + chunk] @ train.T).topk(max(neighbours), dim=1)
        weights, labels = (similarity / temperature).exp(), train_labels[index]
        for k in correct:
            votes = torch.zeros(len(similarity), classes).scatter_add_(1, labels[:, :k], weights[:, :k])
            correct[k] += int((votes.argmax(1) == test_labels[start : start + chunk]).sum())
    return {k: 100.0 * count / len(test) for k, count in correct.items()}
