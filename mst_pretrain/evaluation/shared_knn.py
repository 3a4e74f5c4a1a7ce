"""k-NN over several processes: each keeps its own part of the training features, and no one ever has all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from .knn import knn_predict, nearest, vote
from .ranks import rank, world_size

CHUNK = 1024  # test images whose neighbours travel at a time
TEST_CHUNK, TRAIN_CHUNK = 256, 65536


def shared_knn(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    neighbours: Sequence[int],
    temperature: float,
) -> dict[int, Tensor]:
    """:func:`knn_predict` with the training features of :func:`share`, equal for every number of processes.

    Each process finds the nearest of its own rows, the processes exchange these, and all vote alike. The memory of a
    process is its part of the training features, and for M test images ``20 * M * max(neighbours)`` bytes.

    Args:
        train_features: [len(share(N)), D] float, this process's rows.
        train_labels: [N] int64, of all, on the same device.
        test_features: [M, D] float, of all, on the same device.
        neighbours: The values of k; those above N are refused.
        temperature: Of the votes.

    Returns:
        [M] int64 by k, in every process.

    Raises:
        ValueError: See :func:`knn_predict`.
    """
    if world_size() == 1:
        return knn_predict(train_features, train_labels, test_features, neighbours, temperature)
    count, most = len(train_labels), max(neighbours)
    if most > count or min(neighbours) < 1 or not len(test_features):
        raise ValueError(
            f"k must be between 1 and the {count} training images, and there must be a test image"
        )
    shape = (len(test_features), most)
    similarity = test_features.new_full(shape, -torch.inf, dtype=torch.float64)
    index = train_labels.new_full(shape, count)
    if own := min(most, len(train_features)):
        found = nearest(train_features, test_features, own, TEST_CHUNK, TRAIN_CHUNK)
        similarity[:, :own], index[:, :own] = found[0], found[1] * world_size() + rank()
    predictions: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    classes = int(train_labels.max()) + 1
    for parts in zip(similarity.split(CHUNK), index.split(CHUNK), strict=True):
        near, place = (_beside(part) for part in parts)
        # By rising index first, so that the stable sort keeps the earlier of equals.
        place, order = place.sort(dim=1)
        near, order = near.gather(1, order).sort(dim=1, descending=True, stable=True)
        labels = train_labels[place.gather(1, order)[:, :most]]
        for k, predicted in vote(near[:, :most], labels, classes, neighbours, temperature).items():
            predictions[k].append(predicted)
    return {k: torch.cat(predicted) for k, predicted in predictions.items()}


def _beside(part: Tensor) -> Tensor:
    """[m, n] of every process beside one another: [m, processes * n]."""
    parts = [torch.empty_like(part) for _ in range(world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts, 1)
