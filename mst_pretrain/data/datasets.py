"""Unlabelled images for pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from ..runtime.errors import InvalidValue, UnusableImage
from .broken_images import candidates, encode, first_usable, read_again
from .decode import decode_rgb
from .device_decode import jpeg_for_device
from .multicrop import DRAWS, CropPlan, MultiCrop, pixels_of
from .pixel_cache import PixelCache, check_place
from .sources import open_again, open_source

PLACES = ("host", "device")


class PlannedImage(NamedTuple):
    """An image as the crops of its plan need it.

    Attributes:
        pixels: [3, H, W] uint8, upright; None where a device has or decodes them.
        encoded: A JPEG for a device to decode, else empty.
        orientation: EXIF's, of ``encoded``.
        keep: Whether these are all pixels of the file.
    """

    plan: CropPlan
    pixels: Tensor | None = None
    encoded: bytes = b""
    orientation: int = 1
    keep: bool = False


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
        decode: ``host``: the workers decode and cut. ``device``: they read files and draw boxes; the model's device
            decodes JPEGs and cuts all crops (:class:`DeviceBatches`). Crops are the same but for what two JPEG
            decoders differ by.
        cache: Where decoded pixels are kept from their first use on, see :func:`choose_cache`. The loop chooses.

    Raises:
        UserError: The source is missing or empty.
        InvalidValue: ``decode`` or ``cache`` is unknown, or one does not go with the other.
    """

    def __init__(
        self,
        data_root: str,
        crops: dict[str, Any] | None = None,
        seed: int | None = 0,
        check: bool = True,
        names: str | None = None,
        decode: str = "host",
        cache: str = "none",
    ) -> None:
        if decode not in PLACES:
            raise InvalidValue(f"decode is '{decode}'; choose one of {', '.join(PLACES)}")
        check_place(cache, decode)
        self.source = open_source(data_root) if names is None else open_again(data_root, Path(names))
        self.check = check
        self.crops = MultiCrop(**(crops or {}))
        self.seed = seed
        self.on_device = decode == "device"
        self.cache_place = cache
        self.cache: PixelCache | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        common, image = self.find(*item, self.on_device)
        if self.on_device:
            return {**common, "asked": torch.tensor(item), **packed(image)}
        assert image.pixels is not None
        return {**common, **self.crops.cut(image.pixels, image.plan)}

    def find(self, epoch: int, index: int, on_device: bool) -> tuple[dict[str, Any], PlannedImage]:
        """``seed``, ``index`` and ``faults`` of a sample, and its image.

        Args:
            epoch: The sampler's.
            index: Of the image that is asked for.
            on_device: Whether a device may decode the image, or have it.
        """
        if self.seed is None:
            raise ValueError(
                "UnlabelledImages has seed=None, which only MSTRunner replaces by the run's; give it one"
            )
        rng = np.random.default_rng([self.seed, epoch, index])
        seed, draws = int(rng.integers(2**62)), rng.random((len(self.crops.recipes), DRAWS))
        wanted = candidates(self.seed, epoch, index, len(self))
        used, image, faults = first_usable(
            wanted, lambda number: read_again(lambda: self.read(number, draws, on_device)), self.source.name
        )
        return {"seed": torch.tensor(seed), "index": torch.tensor(used), "faults": encode(faults)}, image

    def is_usable(self, index: int) -> bool:
        """Whether an image can be read now."""
        try:
            decode_rgb(self.source.read(index), self.source.name(index))
        except UnusableImage:
            return False
        return True

    def read(self, index: int, draws: np.ndarray, on_device: bool = False) -> PlannedImage:
        """An image, as large as its crops need it, and where these lie.

        One that is decoded smaller is neither kept nor taken from what is kept: a sample must not depend on that.
        """
        cache = self.cache if self.cache is not None and (on_device or not self.cache.device) else None
        if cache is not None and (size := cache.size(index)) is not None:
            plan = self.crops.plan(*size, draws)
            if self.crops.reduction(plan) == 1:
                return PlannedImage(plan, None if cache.device else cache.get(index))
        encoded = self.source.read(index)
        if on_device and (cache is None or cache.device) and (header := jpeg_for_device(encoded)):
            plan = self.crops.plan(*header.size, draws)
            if self.crops.reduction(plan) == 1:
                return PlannedImage(plan, None, encoded, header.orientation, keep=True)
        plans = []

        def reduction(width: int, height: int) -> int:
            plans.append(self.crops.plan(width, height, draws))
            return self.crops.reduction(plans[-1])

        pixels, plan = pixels_of(decode_rgb(encoded, self.source.name(index), reduction)), plans[-1]
        keep = self.crops.reduction(plan) == 1
        if keep and cache is not None and not cache.device:
            cache.put(index, pixels)
        return PlannedImage(plan, pixels, keep=keep)


def packed(image: PlannedImage) -> dict[str, Tensor]:
    """What :class:`DeviceBatches` needs, as tensors.

    Returns:
        ``data`` uint8: a JPEG's bytes, or pixels, [3 * H * W], or nothing where the device has them. ``form`` int64:
        whether it is a JPEG, its orientation, height and width once upright, and whether the pixels may be kept.
        ``boxes`` [N, 4] int64: left, top, right, bottom; ``flips`` [N] bool; ``parameters`` [N, len(PARAMETERS)].
    """
    width, height = image.plan.size
    data = torch.from_numpy(np.frombuffer(image.encoded, np.uint8).copy())
    if image.pixels is not None:
        height, width = image.pixels.shape[1:]
        data = image.pixels.flatten()
    return {
        "data": data,
        "form": torch.tensor([len(image.encoded) > 0, image.orientation, height, width, image.keep]),
        "boxes": torch.from_numpy(image.plan.boxes_in(width, height)),
        "flips": torch.from_numpy(image.plan.flips),
        "parameters": torch.from_numpy(image.plan.parameters),
    }
