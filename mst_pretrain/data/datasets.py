"""Unlabelled images for pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from PIL import Image
from torch.utils.data import Dataset

from ..runtime.errors import UnusableImage
from .broken_images import candidates, encode, first_usable, read_again
from .decode import decode_rgb
from .multicrop import DRAWS, CropPlan, MultiCrop
from .sources import open_again, open_source


@DATASETS.register_module()
class UnlabelledImages(Dataset):
    """Every image of a source, without labels.

    A sample is asked for as (epoch, index); what comes out is a function of (seed, epoch, index) alone. An image that
    cannot be used is replaced by the first of :func:`candidates` that can; ``index`` is the one that was used, and
    ``faults`` names the others.

    Args:
        data_root: A folder, text list, shards, URLs or a Hugging Face data set: see :func:`open_source`.
        crops: Arguments of :class:`MultiCrop`.
        seed: Seed of all augmentation. In a config, None is the run's: ``MSTRunner.build_dataloader`` puts it there.
        check: The loop looks at every image first (:func:`check_once`), so that a truncated one stops the run before
            its first step; a data set known to be whole can skip it.
        names: Of a run that is resumed: its list of files, see :func:`open_again`. The loop gives it.

    Raises:
        UserError: The source is missing or empty.
    """

    def __init__(
        self,
        data_root: str,
        crops: dict[str, Any] | None = None,
        seed: int | None = 0,
        check: bool = True,
        names: str | None = None,
    ) -> None:
        self.source = open_source(data_root) if names is None else open_again(data_root, Path(names))
        self.check = check
        self.crops = MultiCrop(**(crops or {}))
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        if self.seed is None:
            raise ValueError(
                "UnlabelledImages has seed=None, which only MSTRunner replaces by the run's; give it one"
            )
        epoch, index = item
        rng = np.random.default_rng([self.seed, epoch, index])
        seed, draws = int(rng.integers(2**62)), rng.random((len(self.crops.recipes), DRAWS))
        wanted = candidates(self.seed, epoch, index, len(self))
        used, (image, plan), faults = first_usable(
            wanted, lambda number: read_again(lambda: self._read(number, draws)), self.source.name
        )
        sample = self.crops.cut(image, plan)
        return {**sample, "seed": torch.tensor(seed), "index": torch.tensor(used), "faults": encode(faults)}

    def is_usable(self, index: int) -> bool:
        """Whether an image can be read now."""
        try:
            decode_rgb(self.source.read(index), self.source.name(index))
        except UnusableImage:
            return False
        return True

    def _read(self, index: int, draws: np.ndarray) -> tuple[Image.Image, CropPlan]:
        """An image, as large as its crops need it, and where these lie."""
        plans = []

        def reduction(width: int, height: int) -> int:
            plans.append(self.crops.plan(width, height, draws))
            return self.crops.reduction(plans[-1])

        image = decode_rgb(self.source.read(index), self.source.name(index), reduction)
        return image, plans[-1]
