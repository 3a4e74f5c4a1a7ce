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
from .statistics import IMAGENET_MEAN, IMAGENET_STD

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
    if not _on_gpu(images):
        for image, values in zip(images.split(1), parameters.tolist(), strict=True):
            image.copy_(_change_one(image, dict(zip(PARAMETERS, values, strict=True))))
        return images
    orders = _ORDERS[parameters[:, _COLUMN["order"]].long()]
    largest_sigma = float(parameters[:, _COLUMN["sigma"]].max())
    packed = torch.cat([parameters, orders], 1).pin_memory().to(images.device, non_blocking=True)
    parameters, orders = packed.tensor_split([len(PARAMETERS)], 1)
    columns = dict(zip(PARAMETERS, parameters.unbind(1), strict=True))
    for operations in orders.unbind(1):
        images = (jitter_on_gpu or jitter)(images, parameters, operations)
    images = _where(columns["grey"] > 0, rgb_to_grey(images), images)
    if largest_sigma > 0:
        blurred = gaussian_blur(images, columns["sigma"], largest_sigma)
        images = _where(columns["sigma"] > 0, blurred, images)
    return _where(columns["solarize"] > 0, solarize(images), images)


def _change_one(image: Tensor, values: dict[str, float]) -> Tensor:
    """What :func:`augment` does on a CPU to [1, 3, H, W]: all changes of an image while it is in the cache."""
    if values["jitter"]:
        for operation in _ORDERS[int(values["order"])].tolist():
            image = _ADJUST[_JITTER[operation]](image, values[_JITTER[operation]])
    if values["grey"]:
        image = rgb_to_grey(image).expand(-1, 3, -1, -1)
    if values["sigma"] > 0:
        image = _blur_one(image, values["sigma"])
    return solarize(image) if values["solarize"] else image


def jitter(images: Tensor, parameters: Tensor, operations: Tensor) -> Tensor:
    """One of the jitter's four operations on each image, as it is done on a GPU.

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
        images = _where(chosen, _ADJUST[name](images, columns[name].view(-1, 1, 1, 1)), images)
    return images


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """The changed images [B, 3 or 1, H, W] where they are chosen [B], else those that they were."""
    return torch.where(chosen.view(-1, 1, 1, 1), changed, images)


def _on_gpu(images: Tensor) -> bool:
    """Where to look at a value waits for the device, and computing is cheaper than choosing what to compute."""
    return images.device.type != "cpu"


def solarize(images: Tensor) -> Tensor:
    """Invert all values of at least 128 of 255. Comparing and choosing takes a CPU three times as long."""
    return (images - torch.floor(images - 128 / 255).add_(1)).abs_()


def rgb_to_grey(images: Tensor) -> Tensor:
    """[B, 3, H, W] to luma [B, 1, H, W] (ITU-R 601, torchvision's weights)."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def adjust_brightness(images: Tensor, factor: Tensor | float) -> Tensor:
    """Scale values by ``factor`` [B, 1, 1, 1], clamped to [0, 1]."""
    return (images * factor).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor | float) -> Tensor:
    """Blend with each image's mean luma."""
    mean = rgb_to_grey(images).mean((1, 2, 3), keepdim=True)
    return (factor * images + (1 - factor) * mean).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor | float) -> Tensor:
    """Blend with the luma."""
    return (factor * images + (1 - factor) * rgb_to_grey(images)).clamp_(0, 1)


def adjust_hue(images: Tensor, factor: Tensor | float) -> Tensor:
    """Turn the hue by ``factor`` in [-0.5, 0.5] turns, saturation and value kept (HSV).

    By arithmetic alone: comparing and choosing takes a CPU many times as long.
    """
    value, lowest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - lowest
    # Distance of each channel from the largest, in chromas; a grey pixel has none, and any hue
    red, green, blue = ((value - images) / (chroma + (1 - chroma.ceil()))).split(1, 1)
    not_red, not_green = red.ceil(), green.ceil()
    sixths = (1 - not_red) * (blue - green)
    sixths += not_red * ((1 - not_green) * (2 + red - blue) + not_green * (4 + green - red))
    turns = sixths / 6 + factor
    sixths = 6 * (turns - turns.floor())
    # By how many chromas red, green and blue lie above the lowest
    ramps = torch.cat([(sixths - 3).abs() - 1, 2 - (sixths - 2).abs(), 2 - (sixths - 4).abs()], 1)
    return lowest + chroma * ramps.clamp_(0, 1)


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


def _blur_one(image: Tensor, sigma: float) -> Tensor:
    """The same of [1, C, H, W] on a CPU, by a sum of shifted images."""
    radius = min(max(1, int(3 * sigma + 0.5)), min(image.shape[-2:]) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float32) / sigma) ** 2)
    image = F.pad(image, (radius, radius, radius, radius), mode="reflect")
    for axis in (2, 3):
        length = image.shape[axis] - 2 * radius
        total = torch.zeros_like(image.narrow(axis, 0, length))
        for shift, weight in enumerate((weights / weights.sum()).tolist()):
            total.add_(image.narrow(axis, shift, length), alpha=weight)
        image = total
    return image


_ADJUST: dict[str, Callable[[Tensor, Any], Tensor]] = dict(
    zip(_JITTER, (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue), strict=True)
)
