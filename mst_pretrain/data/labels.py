"""Class names to class indices, the same way for every source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .files import list_images, visible


def number_classes(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Class indices of N class names, and the K classes.

    Returns:
        [N] indices and the names by index: in numeric order where all are integers (``2`` before ``10``, ``007`` is
        ``7``), else in alphabetical order.
    """
    if all(name.lstrip("-").isdecimal() for name in names):
        names = [str(int(name)) for name in names]
        classes = sorted(set(names), key=int)
    else:
        classes = sorted(set(names))
    index = {name: number for number, name in enumerate(classes)}
    return [index[name] for name in names], classes


def class_names(root: Path) -> list[str]:
    """The folders in ``root`` in sorted order, hidden ones left out."""
    return sorted(visible(entry.name for entry in root.iterdir() if entry.is_dir()))


def class_folders(root: str | Path) -> tuple[list[Path], list[int], list[str]]:
    """Images of one folder per class.

    Returns:
        Paths, class index of each (folders in sorted order), and the class names.

    Raises:
        UserError: ``root`` is missing or has no class folder with an image.
    """
    root = Path(root)
    names = class_names(root) if root.is_dir() else []
    if not names:
        raise UserError(
            f"{root} has no class folders. Labelled images are expected as {root}/CLASS/IMAGE.jpg."
        )
    per_class = [list_images(root / name) for name in names]
    labels = [label for label, paths in enumerate(per_class) for _ in paths]
    return [path for paths in per_class for path in paths], labels, names
