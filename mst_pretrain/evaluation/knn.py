"""Weighted k-nearest-neighbour classification of frozen features [code: DINO]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SPARE = 32  # candidates beyond k
BLOCK = 32  # columns whose maximum is looked at first
RANKED = 64  # test images whose candidates are compared in float64 at a time
VOTED = 256  # test images whose votes are counted at a time


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    neighbours: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    test_chunk: int = 256,
    train_chunk: int = 65536,
) -> dict[int, Tensor]:
    """Predicted class for several k: cosine similarity, each neighbour votes with exp(similarity / temperature).

    Exact for any number of classes and images; memory is bounded by the two chunks. Of equally similar images the
    earlier one is the neighbour, of classes with equal votes the lower one wins, whatever the chunks.

    Args:
        train_features: [N, D] float.
        train_labels: [N] int64, 0 <= label.
        test_features: [M, D] float, on the same device.
        neighbours: The values of k; those above N are refused.
        temperature: Of the votes, > 0.
        test_chunk: Test images at a time.
        train_chunk: Training images at a time.

    Returns:
        [M] int64 by k.

    Raises:
        ValueError: No test image, or a k above the number of training images.
    """
    count, most = len(train_features), max(neighbours)
    if most > count or min(neighbours) < 1:
        raise ValueError(f"k must be between 1 and the {count} training images, got {list(neighbours)}")
    if not len(test_features):
        raise ValueError("there is no test image")
    found = nearest(train_features, test_features, most, test_chunk, train_chunk)
    return vote(found[0], train_labels[found[1]], int(train_labels.max()) + 1, neighbours, temperature)


def vote(
    similarity: Tensor, labels: Tensor, classes: int, neighbours: Sequence[int], temperature: float
) -> dict[int, Tensor]:
    """Predicted class of each of M images, [M] int64 by k, from its neighbours, the nearest first.

    Args:
        similarity: [M, n] float64, falling.
        labels: [M, n] int64 of the neighbours, below ``classes``.
        classes: K.
        neighbours: The values of k, at most n.
        temperature: Of the votes, > 0.
    """
    predictions: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for near, own in zip(similarity.split(VOTED), labels.split(VOTED), strict=True):
        # Relative to the nearest, so that a low temperature cannot overflow; float64, so that sums tie only if equal.
        votes = ((near - near[:, :1]) / temperature).exp()
        for k in predictions:
            tally = votes.new_zeros(len(votes), classes).scatter_add_(1, own[:, :k], votes[:, :k])
            predictions[k].append((tally == tally.amax(1, keepdim=True)).int().argmax(1))
    return {k: torch.cat(parts) for k, parts in predictions.items()}


def nearest(
    train: Tensor, test: Tensor, count: int, test_chunk: int, train_chunk: int
) -> tuple[Tensor, Tensor]:
    """The ``count`` most similar training images of each test image, most similar first, earlier first on ties.

    Found in float32 with ``SPARE`` more, which are then ordered by their similarity in float64: neighbours that float32
    cannot tell apart would depend on the order of its sums.

    Args:
        train: [N, D] float, not normalised.
        test: [M, D] float, not normalised.
        count: At most N.
        test_chunk: Test images at a time.
        train_chunk: Training images at a time.

    Returns:
        Cosine similarity [M, count] float64, and index [M, count] int64.
    """
    candidates = _candidates(train, test, min(count + SPARE, len(train)), test_chunk, train_chunk)
    # by chunks: in one go the whole training set would be copied as float64
    norms = [torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64) for rows in train.split(train_chunk)]
    length = torch.cat(norms).clamp(min=1e-12)  # as F.normalize has it
    found: list[tuple[Tensor, Tensor]] = []
    for rows, places in zip(test.split(RANKED), candidates.split(RANKED), strict=True):
        # By rising index first, so that the stable sort keeps the earlier of equals.
        index = places.sort(dim=1).values
        exact = _similarity(train, length, rows, index)
        best, order = exact.sort(dim=1, descending=True, stable=True)
        found.append((best[:, :count].clone(), index.gather(1, order[:, :count])))
    similarity, chosen = (torch.cat(parts) for parts in zip(*found, strict=True))
    return similarity, chosen


def _candidates(train: Tensor, test: Tensor, count: int, test_chunk: int, train_chunk: int) -> Tensor:
    """Index [M, count] int64 of the most similar training images by float32, earlier ones first on ties."""
    queries = F.normalize(test.float(), dim=1).split(test_chunk)
    best = [rows.new_empty(len(rows), 0) for rows in queries]
    indices = [rows.new_empty(len(rows), 0, dtype=torch.int64) for rows in queries]
    for start in range(0, len(train), train_chunk):
        keys = F.normalize(train[start : start + train_chunk].float(), dim=1).T
        for place, rows in enumerate(queries):
            near, index = _top(rows @ keys, min(count, keys.shape[1]))
            # Candidates stand by rising index among equals, and a stable sort keeps them so.
            merged = torch.cat([best[place], near], 1), torch.cat([indices[place], index + start], 1)
            best[place], order = merged[0].sort(dim=1, descending=True, stable=True)
            best[place], indices[place] = best[place][:, :count], merged[1].gather(1, order)[:, :count]
    return torch.cat(indices)


def _similarity(train: Tensor, norms: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Cosine of each row [r, D] and its own training images [r, n], of these norms [N] float64: [r, n] float64."""
    queries = F.normalize(rows.double(), dim=1)
    return torch.einsum("rnd,rd->rn", train[index].double(), queries) / norms[index]


def _top(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``topk`` whose ties go to the lower index, sorted by index among equals.

    Only the ``count`` blocks of columns with the largest maxima are looked into: the others hold none of the largest.
    """
    rows, columns = similarity.shape
    blocks = columns // BLOCK
    if blocks <= count:
        return _top_of(similarity, count)
    tail = similarity[:, blocks * BLOCK :]
    parts = similarity[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK))
    maxima = parts.amax(2)
    chosen = maxima.topk(count, dim=1).indices.sort(dim=1).values  # by rising index, as _top_of needs it
    within = parts.gather(1, chosen.unsqueeze(2).expand(-1, -1, BLOCK)).flatten(1)
    values, index = _top_of(torch.cat([within, tail], 1), count)
    places = torch.arange(BLOCK, device=chosen.device)
    own = torch.cat(
        [
            (chosen.unsqueeze(2) * BLOCK + places).flatten(1),
            torch.arange(blocks * BLOCK, columns, device=chosen.device).expand(rows, -1),
        ],
        1,
    )
    index = own.gather(1, index)
    left = ((maxima >= values[:, -1:]).sum(1) > count).nonzero().flatten()
    if len(left):  # a block that was left out holds an equal of the last
        values[left], index[left] = _top_of(similarity[left], count)
    return values, index


def _top_of(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    values, index = similarity.topk(count, dim=1)
    tied = ((similarity >= values[:, -1:]).sum(1) > count).nonzero().flatten()
    if len(tied):  # topk chose among equals as it liked
        ordered, order = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied], index[tied] = ordered[:, :count], order[:, :count]
    index, order = index.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, index.gather(1, order)


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Per cent of [M] int64 predictions that equal the labels."""
    return 100.0 * int((predicted == labels.to(predicted.device)).sum()) / len(labels)
