"""Predicted label maps as the official evaluation of Cityscapes reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mst_pretrain.errors import UserError


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
    path = Path(image)
    name = path.with_suffix(".png")
    inside = root is not None and path.is_relative_to(root)
    return Path(out_dir, name.relative_to(root) if inside and root is not None else name.name)


def write_label_image(labels: np.ndarray, path: Path, label_ids: Sequence[int] | None = None) -> None:
    """Write labels [H, W] as an 8-bit one-channel PNG, whole or not at all.

    Args:
        labels: Whole numbers.
        path: Its folder is made.
        label_ids: Value of each label; None: the label itself.
    """
    values = labels if label_ids is None else np.asarray(label_ids)[labels]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(Image.fromarray(values.astype(np.uint8)), path)


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image so that ``path`` is at every moment the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    image.save(part, format=Image.registered_extensions()[path.suffix.lower()], quality=92)
    os.replace(part, path)
