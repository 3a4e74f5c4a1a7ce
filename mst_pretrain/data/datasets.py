"""Unlabelled images for pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .files import check_image_files, list_images
from .multicrop import MultiCrop


@DATASETS.register_module()
class UnlabelledImages(Dataset):
    """Every image below a folder: flat, nested, or one folder per class.

    A sample is asked for as (epoch, index); what comes out is a function of (seed, epoch, index) alone.

    Args:
        data_root: Folder, searched recursively in sorted order.
        crops: Arguments of :class:`MultiCrop`.
        seed: Seed of all augmentation.
        check: Look at the head and tail of every file first, so that a truncated image stops the run before its
            first step; a data set known to be whole can skip it.

    Raises:
        UserError: The folder is missing or empty, or an image is truncated.
    """

    def __init__(
        self, data_root: str, crops: dict[str, Any] | None = None, seed: int = 0, check: bool = True
    ) -> None:
        self.paths = list_images(data_root)
        if check:
            check_image_files(self.paths)
        self.crops = MultiCrop(**(crops or {}))
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = item
        rng = np.random.default_rng([self.seed, epoch, index])
        sample = self.crops(read_rgb(self.paths[index]), rng)
        return {**sample, "seed": torch.tensor(int(rng.integers(2**62))), "index": torch.tensor(index)}


def read_rgb(path: str | Path) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        UserError: The file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path} cannot be decoded ({error}). Remove the file or copy it again.") from error


def class_folders(root: str | Path) -> tuple[list[Path], list[int], list[str]]:
    """Images of one folder per class.

    Returns:
        Paths, class index of each (folders in sorted order), and the class names.

    Raises:
        UserError: ``root`` is missing or has no class folder with an image.
    """
    root = Path(root)
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if not names:
        raise UserError(
            f"{root} has no class folders. Labelled images are expected as {root}/CLASS/IMAGE.jpg."
        )
    per_class: Sequence[list[Path]] = [list_images(root / name) for name in names]
    labels = [label for label, paths in enumerate(per_class) for _ in paths]
    return [path for paths in per_class for path in paths], labels, names
