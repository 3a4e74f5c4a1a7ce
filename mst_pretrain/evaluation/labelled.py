"""Labelled images for an evaluation, and seeded class-wise choices among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.files import first_of
from ..data.sources import ImageSource, open_source
from ..runtime.errors import UserError

MAJORITY = "most frequent training class"  # the trivial baseline's name


@dataclass
class Labelled:
    """Images with their labels [N] int64, which are indices into the training set's classes."""

    source: ImageSource
    labels: Tensor
    classes: list[str]


def open_train_val(train: str, val: str) -> tuple[Labelled, Labelled]:
    """Both sets, labelled by the training set's classes; val may have fewer, and is refused with others."""
    sources = {spec: open_source(spec, labelled=True) for spec in (train, val)}
    classes = sources[train].classes
    if unknown := sorted(set(sources[val].classes) - set(classes)):
        raise UserError(
            f"{val} has classes that {train} lacks: {first_of(unknown)}. Add their training images, or leave "
            "their folders out."
        )
    index = {name: number for number, name in enumerate(classes)}

    def relabelled(source: ImageSource) -> Labelled:
        to_train = torch.tensor([index[name] for name in source.classes])
        return Labelled(source, to_train[torch.as_tensor(source.labels)], classes)

    return relabelled(sources[train]), relabelled(sources[val])


def names_of(images: Labelled) -> list[str]:
    """Name of every image."""
    return [str(images.source.name(index)) for index in range(len(images.labels))]


def majority_accuracy(train: Tensor, val: Tensor) -> float:
    """The trivial baseline: per cent of ``val`` that has the most frequent label of ``train``, of equals the lowest."""
    return 100.0 * int((val == train.bincount().argmax()).sum()) / len(val)


def low_shot(labels: Tensor, share: float, seed: int, leave: int = 0) -> Tensor:
    """A seeded part of every class: ``round(share * n)`` of its n images, at least one, at most ``n - leave``.

    Args:
        labels: [N] int64.
        share: In (0, 1].
        seed: The choice is a function of it and the labels alone.
        leave: Images of every class that are not chosen.

    Returns:
        Rising indices [n] int64.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share must be above 0 and at most 1, got {share}")
    chosen = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten().numpy()
        count = min(max(1, round(share * len(members))), len(members) - leave)
        # A generator per class: another class's images do not change this one's choice.
        chosen.append(np.random.default_rng([seed, label]).permutation(members)[:count])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def hold_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split every class by :func:`low_shot`: at least one image of it is kept, at least one held out.

    Returns:
        Rising indices kept and held out, int64, together 0 .. N - 1.

    Raises:
        ValueError: A class with one image; ``args`` are the message and the class.
    """
    present, counts = labels.unique(return_counts=True)
    if len(alone := present[counts < 2]):
        raise ValueError("a class with one image cannot be split", int(alone[0]))
    held = low_shot(labels, share, seed, leave=1)
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[held] = False
    return kept.nonzero().flatten(), held
