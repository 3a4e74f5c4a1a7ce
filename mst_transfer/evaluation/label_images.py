"""Predicted label maps as the official evaluation of Cityscapes reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mst_pretrain.runtime.atomic import replacing
from mst_pretrain.runtime.errors import UserError


def cityscapes_label_ids(classes: Sequence[str]) -> list[int]:
    """Cityscapes' label id (``id``, not ``trainId``) of each class.

    Raises:
        UserError: A name is not Cityscapes'.
    """
    from cityscapesscripts.helpers.labels import name2label

    unknown = [name for name in classes if name not in name2label]
    if unknown:
        raise UserError(
            f"classes {unknown} are not Cityscapes', so they have no official label id. Correct them."
        )
    return [name2label[name].id for name in classes]


def label_image_path(image: str | Path, root: str | Path | None, out_dir: str | Path) -> Path:
    """``out_dir/CITY/NAME.png`` for ``root/CITY/NAME.jpg``; the official evaluation finds it by city and frame."""
    name = Path(image).with_suffix(".png")
    inside = root is not None and name.is_relative_to(root)
    return Path(out_dir, name.relative_to(str(root)) if inside else name.name)


def unsigned(values: np.ndarray, highest: int) -> np.ndarray:
    """Labels as uint8, or as uint16 where the highest one possible is above 255: what a one-channel PNG can hold.

    Raises:
        UserError: A value is negative or above ``highest``, or that is above 65535.
    """
    strange = values[(values < 0) | (values > highest)]
    if strange.size:
        raise UserError(
            f"label {int(strange[0])} is not one of 0 to {highest}, which have names or ids. Correct the classes."
        )
    if highest > np.iinfo(np.uint16).max:
        raise UserError(
            f"label {highest} is above 65535, the highest that a label image can hold. Renumber it."
        )
    return values.astype(np.min_scalar_type(highest))


def write_label_image(labels: np.ndarray, path: Path, label_ids: Sequence[int]) -> None:
    """Write labels [H, W] as a one-channel PNG, of 16 bits where an id is above 255; whole or not at all.

    Args:
        labels: Whole numbers from 0.
        path: Its folder is made.
        label_ids: Value of each label.

    Raises:
        UserError: A label or an id is negative, or an id is above 65535.
    """
    ids = unsigned(np.asarray(label_ids), max(label_ids))
    save_image(Image.fromarray(ids[unsigned(labels, len(ids) - 1)]), path)


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image so that ``path`` is at every moment the old file or the whole new one.

    A run writes thousands, and its index or its metrics last, so no single one waits for the disk.
    """
    kind = Image.registered_extensions()[path.suffix.lower()]
    with replacing(path, durable=False) as part:
        image.save(part, format=kind, quality=92)
