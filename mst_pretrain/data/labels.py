"""Class names to class indices, the same way for every source."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..runtime.errors import UserError
from .files import image_names, unlistable, visible
from .packed import PackedPaths
from .suffixes import IMAGE_SUFFIXES, OUTSIDE, suffix_of


def number_classes(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Class indices of N class names, and the K classes.

    Returns:
        [N] int64 indices and the names by index: in numeric order where all are integers (``2`` before ``10``,
        ``007`` is ``7``), else in alphabetical order.
    """
    if all(name.lstrip("-").isdecimal() for name in names):
        names = [str(int(name)) for name in names]
        classes = sorted(set(names), key=int)
    else:
        classes = sorted(set(names))
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[name] for name in names], np.int64), classes


def class_names(root: Path) -> list[str]:
    """The folders in ``root`` in sorted order, hidden ones left out."""
    try:
        return sorted(visible(entry.name for entry in root.iterdir() if entry.is_dir()))
    except OSError as error:
        raise unlistable(root, error) from error


def class_folders(
    root: str | Path, left_out: Counter[str] | None = None
) -> tuple[PackedPaths, np.ndarray, list[str]]:
    """Images of one folder per class.

    Args:
        root: The folder above them.
        left_out: Counts the files that are not used, as :func:`image_names` does.

    Returns:
        Paths, class index of each (folders in sorted order), [N] int64, and the class names.

    Raises:
        UserError: ``root`` is missing or has no class folder with an image.
    """
    root = Path(root)
    classes = class_names(root) if root.is_dir() else []
    if not classes:
        raise UserError(
            f"{root} has no class folders. Labelled images are expected as {root}/CLASS/IMAGE.jpg."
        )
    labels = array("q")
    others: Counter[str] = Counter() if left_out is None else left_out
    stray = [entry.name for entry in root.iterdir() if entry.is_file()]
    for name in visible(stray):
        others[OUTSIDE if name.lower().endswith(IMAGE_SUFFIXES) else suffix_of(name)] += 1

    def names() -> Iterator[str]:
        for label, name in enumerate(classes):
            for image in image_names(root / name, others):
                labels.append(label)
                yield os.path.join(name, image)

    return PackedPaths(names(), root), np.array(labels), classes
