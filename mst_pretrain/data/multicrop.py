"""Multi-crop on the CPU: one decode, then geometry only, as uint8. Colours are the device's work (photometric.py).

Every random number of a sample comes from (seed, epoch, index), and all are drawn before the image is read: the same
crops on any worker, rank or restart, and an image far larger than its crops is decoded at a part of its size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..runtime.errors import InvalidValue, UserError

# Columns of the photometric parameters of one crop; photometric.py applies them in torchvision's order.
PARAMETERS = ("brightness", "contrast", "saturation", "hue", "order", "jitter", "grey", "sigma", "solarize")
TRIES = 10  # of a box that lies inside its image
BOX_DRAWS = 2 * TRIES + 2  # areas, ratios, left, top
DRAWS = BOX_DRAWS + 1 + len(PARAMETERS) + 1  # and flip, parameters, whether to blur
REDUCTIONS = (8, 4, 2)  # at which a JPEG is decoded for little


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
        self.recipes = (*self.global_crops, *[self.local_crop] * self.local_count)

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

    def plan(self, width: int, height: int, draws: np.ndarray) -> CropPlan:
        """All crops of an image of this size: a function of the draws.

        Args:
            width: Of the upright image, in pixels.
            height: Of the upright image, in pixels.
            draws: [crops, DRAWS] uniform numbers in [0, 1).
        """
        boxes = random_boxes(width, height, self.recipes, draws[:, :BOX_DRAWS])
        flips = draws[:, BOX_DRAWS] < _arrays(self.recipes).flip
        return CropPlan(
            (width, height), boxes, flips, color_parameters(self.recipes, draws[:, BOX_DRAWS + 1 :])
        )

    def reduction(self, plan: CropPlan) -> int:
        """The largest factor by which the image may be decoded smaller with every crop still reduced, or 1."""
        room = (plan.boxes[:, 2:] / _arrays(self.recipes).size).min()
        return next((factor for factor in REDUCTIONS if factor <= room), 1)

    def cut(self, image: Tensor, plan: CropPlan) -> dict[str, Tensor]:
        """Cut an RGB image, or one that was decoded smaller, as torchvision's RandomResizedCrop does, bicubic.

        Args:
            image: [3, H, W] uint8.
            plan: Of this image.

        Returns:
            ``global_crops`` [V, 3, H, W] uint8, ``local_crops`` [L, 3, h, w] uint8, and their
            ``*_parameters`` [., len(PARAMETERS)] float32.
        """
        boxes = plan.boxes_in(image.shape[2], image.shape[1])
        views, parameters = len(self.global_crops), torch.from_numpy(plan.parameters)
        result = {}
        for kind, part, recipe in (
            ("global", slice(views), self.global_crops[0] if views else self.local_crop),
            ("local", slice(views, None), self.local_crop),
        ):
            height_width = recipe.height_width
            crops = np.empty((len(boxes[part]), 3, *height_width), np.uint8)
            for crop, (left, top, right, bottom), flip in zip(
                crops, boxes[part], plan.flips[part], strict=True
            ):
                resized = F.interpolate(
                    image[None, :, top:bottom, left:right], height_width, mode="bicubic", antialias=True
                )[0].numpy()
                crop[:] = resized[..., ::-1] if flip else resized
            result[f"{kind}_crops"] = torch.from_numpy(crops)
            result[f"{kind}_parameters"] = parameters[part]
        return result


def pixels_of(image: Image.Image) -> Tensor:
    """[3, H, W] uint8 of an RGB image; the channels of a pixel lie together in memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass(frozen=True)
class CropPlan:
    """Where all crops of an image lie, and what becomes of them.

    Attributes:
        size: (width, height) of the image.
        boxes: [N, 4] int64: left, top, width, height.
        flips: [N] bool.
        parameters: [N, len(PARAMETERS)] float32, see :func:`color_parameters`.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    flips: np.ndarray
    parameters: np.ndarray

    def boxes_in(self, width: int, height: int) -> np.ndarray:
        """[N, 4] int64: left, top, right, bottom in the image at this size; no box is empty."""
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], 1)
        if (width, height) == self.size:
            return corners
        now = np.array([width, height] * 2)
        corners = np.rint(corners * (now / np.array(self.size * 2))).astype(np.int64)
        corners[:, :2] = np.minimum(corners[:, :2], now[:2] - 1)
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
        return corners


class _Arrays(NamedTuple):
    """The values of recipes, one row each."""

    size: np.ndarray  # width, height
    scale: np.ndarray
    log_ratio: np.ndarray
    flip: np.ndarray
    factors: np.ndarray  # low, high of brightness, contrast, saturation, hue
    shares: np.ndarray  # of jitter, grey, blur, solarize
    sigma: np.ndarray


@lru_cache
def _arrays(recipes: tuple[CropRecipe, ...]) -> _Arrays:
    amounts = np.array([r.jitter for r in recipes])
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    lows = np.maximum(neutral - amounts, [0.0, 0.0, 0.0, -np.inf])
    shares = [
        (r.jitter_probability, r.grey_probability, r.blur_probability, r.solarize_probability)
        for r in recipes
    ]
    return _Arrays(
        size=np.array([r.height_width[::-1] for r in recipes]),
        scale=np.array([r.scale for r in recipes]),
        log_ratio=np.log([r.ratio for r in recipes]),
        flip=np.array([r.flip for r in recipes]),
        factors=np.stack([lows, neutral + amounts], 2),
        shares=np.array(shares),
        sigma=np.array([r.blur_sigma for r in recipes]),
    )


def random_boxes(width: int, height: int, recipes: tuple[CropRecipe, ...], draws: np.ndarray) -> np.ndarray:
    """(left, top, width, height) of crops: ten tries, then the largest central box of an allowed ratio.

    torchvision's rule of RandomResizedCrop.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        recipes: One for each crop.
        draws: [crops, BOX_DRAWS] uniform numbers in [0, 1).

    Returns:
        [crops, 4] int64.
    """
    arrays = _arrays(recipes)
    area = width * height * _between(arrays.scale, draws[:, :TRIES])
    ratio = np.exp(_between(arrays.log_ratio, draws[:, TRIES : 2 * TRIES]))
    sides = np.rint(np.sqrt([area * ratio, area / ratio])).astype(np.int64)  # [2, crops, TRIES]
    image = np.array([width, height])
    fits = ((sides > 0) & (sides <= image[:, None, None])).all(0)
    chosen = np.take_along_axis(sides, fits.argmax(1)[None, :, None], 2)[..., 0].T
    starts = np.floor(draws[:, -2:] * (image - chosen + 1)).astype(np.int64)
    failed = ~fits.any(1)
    if failed.any():
        nearest = np.clip(width / height, *np.exp(arrays.log_ratio).T)
        central = np.rint([height * nearest, width / nearest]).astype(np.int64).T.clip(1, image)
        chosen[failed], starts[failed] = central[failed], (image - central[failed]) // 2
    return np.concatenate([starts, chosen], 1)


def color_parameters(recipes: tuple[CropRecipe, ...], draws: np.ndarray) -> np.ndarray:
    """Photometric parameters of crops, in the order of ``PARAMETERS``.

    ``brightness`` .. ``saturation`` are factors, ``hue`` a shift in turns, ``order`` one of the 24 orders of the
    four, ``jitter``, ``grey`` and ``solarize`` are 0 or 1, ``sigma`` is in pixels (0 = no blur).

    Args:
        recipes: One for each crop.
        draws: [crops, len(PARAMETERS) + 1] uniform numbers in [0, 1).

    Returns:
        [crops, len(PARAMETERS)] float32.
    """
    arrays = _arrays(recipes)
    low, high = arrays.factors[..., 0], arrays.factors[..., 1]
    jitter, grey, blur, solarize = (draws[:, (5, 6, 9, 8)] < arrays.shares).T
    sigma = _between(arrays.sigma, draws[:, 7:8])[:, 0] * blur
    factors, order = low + (high - low) * draws[:, :4], np.floor(24 * draws[:, 4])
    return np.column_stack([factors, order, jitter, grey, sigma, solarize]).astype(np.float32)


def _between(ranges: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """[N, M] numbers, of row n between the [N, 2] ends of a range."""
    return ranges[:, :1] + (ranges[:, 1:] - ranges[:, :1]) * draws


def _recipe(value: Any) -> CropRecipe:
    if isinstance(value, CropRecipe):
        return value
    value = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return CropRecipe(**value)
