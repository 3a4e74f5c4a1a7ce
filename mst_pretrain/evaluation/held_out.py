"""One labelled set for k-NN while a training runs: its neighbours, and what is held out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..data.sources import ImageSource, open_source
from ..runtime.errors import UserError
from .labelled import hold_out, open_train_val
from .protocols import NEIGHBOURS

VALIDATION_FOLDERS = ("val", "valid", "validation", "test")
SHARE, SEED = 0.2, 0  # held out of every class where there is no such folder [ours]
USUAL = 20  # neighbours, where there are as many [code: DINO]


@dataclass(frozen=True)
class LabelledPart:
    """Some images of a source.

    Attributes:
        indices: Of the N images, or None for all.
        labels: [N] int64.
    """

    source: ImageSource
    indices: Sequence[int] | None
    labels: Tensor


def open_held_out(spec: str) -> tuple[LabelledPart, LabelledPart]:
    """The neighbours and the held-out images of a labelled set.

    Args:
        spec: A folder with ``train`` and ``val`` (or ``valid``, ``validation``, ``test``), each with a folder per
            class; or any labelled source of :func:`open_source`, of which a fifth of every class is held out.

    Raises:
        UserError: It cannot be read, has no labels, one class alone, or a class with one image.
    """
    root = Path(spec)
    found = [name for name in VALIDATION_FOLDERS if (root / name).is_dir()]
    if found and (root / "train").is_dir():
        parts = open_train_val(str(root / "train"), str(root / found[0]))
        train, val = (LabelledPart(part.source, None, part.labels) for part in parts)
        return train, val
    source = open_source(spec, labelled=True)
    labels = torch.as_tensor(source.labels)
    if len(source.classes) < 2:
        raise UserError(
            f"evaluation.knn: {spec} has one class, {source.classes[0]}. Name labelled images of several: a folder "
            "with a folder for each class."
        )
    try:
        kept, held = hold_out(labels, SHARE, SEED)
    except ValueError as error:
        name = source.classes[error.args[1]]
        raise UserError(
            f"evaluation.knn: class {name} of {spec} has one image, and one must be held out. Add images of it, or "
            "leave its folder out."
        ) from error
    return LabelledPart(source, kept.tolist(), labels[kept]), LabelledPart(
        source, held.tolist(), labels[held]
    )


def usual_k(images: int) -> int:
    """Neighbours that vote: DINO's 20, or fewer where there are not as many images."""
    return max([k for k in (1, *NEIGHBOURS) if k <= min(images, USUAL)])
