"""Multi-crop on the CPU: one decode, then geometry only, as uint8. Colours are the device's work (photometric.py).

Every random number of a sample comes from (seed, epoch, index): the same crops on any worker, rank or restart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..runtime.errors import InvalidValue, UserError

# Columns of the photometric parameters of one crop; photometric.py applies them in torchvision's order.
PARAMETERS = ("brightness", "contrast", "saturation", "hue", "order", "jitter", "grey", "sigma", "solarize")


@dataclass(frozen=True)
class CropRecipe:
    """How crops of one kind are cut and coloured. Defaults are DINO's first global view [code: DINO].

    Attributes:
        size: Side in pixels, or (height, width).
        scale: Share of the image's area, (low, high).
        ratio: Width over height, (low, high).
        flip: Probability of a horizontal flip.
        jitter: Largest (brightness, contrast, saturation, hue) changes.
        jitter_probability: Probability of any jitter.
        grey_probability: Probability of losing the colours.
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Its standard deviation in pixels, (low, high).
        solarize_probability: Probability of inverting all values of at least 128.
    """

    size: int | tuple[int, int] = 224
    scale: tuple[float, float] = (0.4, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    blur_probability: float = 1.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0

    @property
    def height_width(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])


@dataclass
class MultiCrop:
    """Cuts all crops of one image.

    Args:
        global_crops: One recipe (or its keyword arguments) per global view, all of one size.
        local_crop: The recipe of the local crops.
        local_count: How many of them; 0 switches them off.

    Raises:
        InvalidValue: Sizes or the number of crops are impossible.
    """

    global_crops: list[Any] = field(default_factory=lambda: [CropRecipe(), CropRecipe()])
    local_crop: Any = field(default_factory=lambda: CropRecipe(size=96, scale=(0.05, 0.4)))
    local_count: int = 8

    def __post_init__(self) -> None:
        self.global_crops = [_recipe(r) for r in self.global_crops]
        self.local_crop = _recipe(self.local_crop)
        if len({r.height_width for r in self.global_crops}) != 1:
            raise InvalidValue("all global crops must have one size")
        if self.local_count < 0:
            raise InvalidValue(f"local_count must be at least 0, got {self.local_count}")
        for recipe in (*self.global_crops, self.local_crop):
            if min(recipe.height_width) < 1:
                raise InvalidValue(f"a crop's size must be at least 1, got {recipe.size}")

    def check(self, global_unit: int, local_unit: int) -> None:
        """Refuse a single crop an image, and sides that the pixels of a token (the units) do not divide."""
        if len(self.global_crops) + self.local_count < 2:
            raise UserError(
                "train_dataloader.dataset.crops has one crop an image, and the student matches the teacher's output "
                "on another one. Set two global_crops, or local_count."
            )
        recipes = [("global_crops", self.global_crops[0], global_unit)]
        recipes += [("local_crop", self.local_crop, local_unit)] if self.local_count else []
        for name, recipe, unit in recipes:
            if any(side % unit for side in recipe.height_width):
                raise UserError(
                    f"train_dataloader.dataset.crops.{name}: size {recipe.size} does not divide into tokens of "
                    f"{unit} pixels. Give a multiple of {unit}."
                )

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> dict[str, Tensor]:
        """Cut an RGB image.

        Returns:
            ``global_crops`` [V, 3, H, W] uint8, ``local_crops`` [L, 3, h, w] uint8, and their
            ``*_parameters`` [., len(PARAMETERS)] float32.
        """
        recipes = self.global_crops + [self.local_crop] * self.local_count
        crops = [(cut(image, recipe, rng), draw_parameters(recipe, rng)) for recipe in recipes]
        views = len(self.global_crops)
        height, width = self.local_crop.height_width
        empty = torch.zeros(0, 3, height, width, dtype=torch.uint8), torch.zeros(0, len(PARAMETERS))
        pixels, parameters = _stack(crops[:views])
        local_pixels, local_parameters = _stack(crops[views:]) if self.local_count else empty
        return {
            "global_crops": pixels,
            "global_parameters": parameters,
            "local_crops": local_pixels,
            "local_parameters": local_parameters,
        }


def cut(image: Image.Image, recipe: CropRecipe, rng: np.random.Generator) -> Tensor:
    """Random resized crop (bicubic) and flip: [3, H, W] uint8. torchvision's RandomResizedCrop rule."""
    left, top, crop_width, crop_height = random_box(image.width, image.height, recipe, rng)
    height, width = recipe.height_width
    box = (left, top, left + crop_width, top + crop_height)
    crop = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(crop).transpose(2, 0, 1)
    if rng.random() < recipe.flip:
        pixels = pixels[:, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels))


def random_box(
    width: int, height: int, recipe: CropRecipe, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a crop: ten tries, then the largest central box of an allowed ratio."""
    area = width * height
    low, high = math.log(recipe.ratio[0]), math.log(recipe.ratio[1])
    for _ in range(10):
        target = area * rng.uniform(*recipe.scale)
        ratio = math.exp(rng.uniform(low, high))
        crop_width, crop_height = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(0, width - crop_width + 1))
            top = int(rng.integers(0, height - crop_height + 1))
            return left, top, crop_width, crop_height
    ratio = min(max(width / height, recipe.ratio[0]), recipe.ratio[1])
    crop_width = min(width, max(1, round(height * ratio)))
    crop_height = min(height, max(1, round(width / ratio)))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def draw_parameters(recipe: CropRecipe, rng: np.random.Generator) -> Tensor:
    """One crop's photometric parameters, [len(PARAMETERS)] float32, in the order of ``PARAMETERS``.

    ``brightness`` .. ``saturation`` are factors, ``hue`` a shift in turns, ``order`` one of the 24 orders of the
    four, ``jitter``, ``grey`` and ``solarize`` are 0 or 1, ``sigma`` is in pixels (0 = no blur).
    """
    brightness, contrast, saturation, hue = recipe.jitter
    factors = [rng.uniform(max(0.0, 1 - amount), 1 + amount) for amount in (brightness, contrast, saturation)]
    shift = rng.uniform(-hue, hue)
    order = rng.integers(24)
    jitter = rng.random() < recipe.jitter_probability
    grey = rng.random() < recipe.grey_probability
    sigma = rng.uniform(*recipe.blur_sigma) * (rng.random() < recipe.blur_probability)
    solarize = rng.random() < recipe.solarize_probability
    return torch.tensor([*factors, shift, order, jitter, grey, sigma, solarize], dtype=torch.float32)


def _recipe(value: Any) -> CropRecipe:
    if isinstance(value, CropRecipe):
        return value
    value = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return CropRecipe(**value)


def _stack(crops: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([pixels for pixels, _ in crops]), torch.stack([parameters for _, parameters in crops])
