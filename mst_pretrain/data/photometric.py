"""Colour augmentation for a whole batch on its device; every sample has its own parameters.

Equal, sample by sample, to torchvision's float functions with the same factors. The parameters are drawn with the crops
(multicrop.py). On a GPU every operation is computed for all samples and kept for those that it is meant for: nothing
waits for the device, and all shapes are the same in every step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from ..runtime.compiling import compiled
from .multicrop import PARAMETERS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_COLUMN = {name: index for index, name in enumerate(PARAMETERS)}
_ORDERS = torch.tensor(list(itertools.permutations(range(4))))
_JITTER = ("brightness", "contrast", "saturation", "hue")


@MODELS.register_module()
class MultiCropPreprocessor(BaseDataPreprocessor):
    """Batches of uint8 crops to augmented, normalised float32 views.

    Args:
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__(non_blocking=True)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.augment = augment

    def compile_jitter(self, backend: str) -> None:
        """Compile :func:`jitter`, as it is on a GPU, by a backend of ``torch.compile``."""
        self.augment = partial(augment, jitter_on_gpu=compiled(jitter, backend))

    @torch.no_grad()
    def forward(self, data: dict[str, Any], training: bool = True) -> dict[str, Tensor]:
        """Collated samples of the training data set to the arguments of ``MST.loss``.

        Args:
            data: ``global_crops`` [B, V, 3, H, W] uint8, ``local_crops`` [B, L, 3, h, w] uint8, their
                ``*_parameters`` [B, ., P], ``seed`` [B] int64. On the CPU, in pinned memory if on a GPU they are not to
                be waited for.
            training: False skips the augmentation.
        """
        views = {}
        for kind in ("global", "local"):
            crops = self.cast_data(data[f"{kind}_crops"]).transpose(0, 1)
            parameters = data[f"{kind}_parameters"].transpose(0, 1).flatten(0, 1)
            # View after view in the one pass that makes them floating-point numbers
            pixels = crops.to(torch.float32, memory_format=torch.contiguous_format).flatten(0, 1).div_(255)
            if training and len(pixels):
                # MMEngine calls this inside the step's autocast region
                with torch.autocast(pixels.device.type, enabled=False):
                    pixels = self.augment(pixels, parameters)
            views[f"{kind}_views"] = ((pixels - self.mean) / self.std).unflatten(0, crops.shape[:2])
        return {**views, "seeds": self.cast_data(data["seed"])}


def augment(
    images: Tensor,
    parameters: Tensor,
    jitter_on_gpu: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """DINO's colour pipeline: jitter, grey, blur, solarize [code: DINO].

    Args:
        images: [B, 3, H, W] float32 in [0, 1]; may be changed in place.
        parameters: [B, len(PARAMETERS)] float32 on the CPU, see ``multicrop.color_parameters``.
        jitter_on_gpu: :func:`jitter`, compiled, for images on a GPU.

    Returns:
        [B, 3, H, W] float32 in [0, 1].
    """
    sigma, orders = parameters[:, _COLUMN["sigma"]], _ORDERS[parameters[:, _COLUMN["order"]].long()]
    largest_sigma = float(sigma.max())
    packed = torch.cat([parameters, orders], 1)
    if _on_gpu(images):
        packed = packed.pin_memory().to(images.device, non_blocking=True)
    parameters, orders = packed.tensor_split([len(PARAMETERS)], 1)
    columns = dict(zip(PARAMETERS, parameters.unbind(1), strict=True))
    change = jitter_on_gpu if jitter_on_gpu is not None and _on_gpu(images) else jitter
    for operations in orders.unbind(1):
        images = change(images, parameters, operations)
    images = _where(columns["grey"] > 0, _grey, images, columns["grey"])
    if largest_sigma > 0:
        blur = partial(gaussian_blur, largest_sigma=largest_sigma)
        images = _where(columns["sigma"] > 0, blur, images, columns["sigma"])
    return _where(columns["solarize"] > 0, _solarize, images, columns["solarize"])


def jitter(images: Tensor, parameters: Tensor, operations: Tensor) -> Tensor:
    """One of the jitter's four operations on each image.

    Args:
        images: [B, 3, H, W] float32 in [0, 1]; may be changed in place.
        parameters: [B, len(PARAMETERS)] float32 on their device; without ``jitter`` an image is left as it is.
        operations: [B] float32, each image's: 0 brightness, 1 contrast, 2 saturation, 3 hue.

    Returns:
        [B, 3, H, W] float32 in [0, 1].
    """
    columns = dict(zip(PARAMETERS, parameters.unbind(1), strict=True))
    for operation, name in enumerate(_JITTER):
        chosen = (columns["jitter"] > 0) & (operations == operation)
        images = _where(chosen, _ADJUST[name], images, columns[name].view(-1, 1, 1, 1))
    return images


def _where(
    chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor], images: Tensor, factors: Tensor
) -> Tensor:
    """``operation`` done to the chosen images, with the factor of each."""
    if _on_gpu(images):
        return torch.where(chosen.view(-1, 1, 1, 1), operation(images, factors), images)
    rows = torch.nonzero(chosen).flatten()
    if len(rows):
        images[rows] = operation(images[rows], factors[rows])
    return images


def _on_gpu(images: Tensor) -> bool:
    """Where to look at a value waits for the device, and computing is cheaper than choosing what to compute."""
    return images.device.type != "cpu"


def _grey(images: Tensor, _: Tensor) -> Tensor:
    return rgb_to_grey(images).expand(-1, 3, -1, -1)


def _solarize(images: Tensor, _: Tensor) -> Tensor:
    return torch.where(images >= 128 / 255, 1 - images, images)


def rgb_to_grey(images: Tensor) -> Tensor:
    """[B, 3, H, W] to luma [B, 1, H, W] (ITU-R 601, torchvision's weights)."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale values by ``factor`` [B, 1, 1, 1], clamped to [0, 1]."""
    return (images * factor).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with each image's mean luma."""
    mean = rgb_to_grey(images).mean((1, 2, 3), keepdim=True)
    return (factor * images + (1 - factor) * mean).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luma."""
    return (factor * images + (1 - factor) * rgb_to_grey(images)).clamp_(0, 1)


def adjust_hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by ``factor`` in [-0.5, 0.5] turns, saturation and value kept (HSV)."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (hue / 6 + factor[:, 0]) % 1.0
    # Channel n of HSV to RGB: value - chroma * clamp(min(k, 4 - k), 0, 1) with k = (n + 6 hue) mod 6
    offsets = torch.arange(5.0, 0.0, -2.0, device=images.device).view(1, 3, 1, 1)
    k = (offsets + 6 * hue.unsqueeze(1)) % 6
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp_(0, 1)


def gaussian_blur(images: Tensor, sigmas: Tensor, largest_sigma: float) -> Tensor:
    """Separable Gaussian blur of a radius of 3 sigmas (at least one pixel), reflected borders, each image by itself.

    Args:
        images: [B, C, H, W] float32.
        sigmas: [B] standard deviations in pixels; 0 changes nothing.
        largest_sigma: Of the batch, a number on the host, so that no device is waited for.
    """
    batch, channels, height, width = images.shape
    furthest = min(height, width) - 1
    radius = max(1, int(3 * largest_sigma + 0.5))
    if _on_gpu(images):
        radius += -radius % 4  # few shapes for what is compiled; weights beyond an image's own radius are 0
    radius = min(radius, furthest)
    radii = (3 * sigmas + 0.5).floor().clamp(1, furthest).unsqueeze(1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    distances = offsets / sigmas.clamp(min=1e-6).unsqueeze(1)
    kernels = torch.exp(-0.5 * distances**2) * (offsets.abs() <= radii)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    x = F.pad(images, (radius, radius, radius, radius), mode="reflect").reshape(
        1, batch * channels, height + 2 * radius, width + 2 * radius
    )
    x = F.conv2d(x, kernels[:, None, :, None], groups=batch * channels)
    x = F.conv2d(x, kernels[:, None, None, :], groups=batch * channels)
    return x.view(batch, channels, height, width)


_ADJUST = dict(zip(_JITTER, (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue), strict=True))
