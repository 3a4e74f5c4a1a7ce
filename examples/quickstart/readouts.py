"""What frozen features know of the scenes: mIoU of a linear head with few labelled scenes, arm by arm.

An arm is a way to describe each patch of 8 x 8 pixels by numbers: a network's patch tokens, the raw pixels, or the
position alone. The head is the same for all arms, has one solution (ridge.py) and nothing to tune.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mst_pretrain.data.photometric import IMAGENET_MEAN, IMAGENET_STD
from mst_pretrain.method.backbones import Trunk

from .drawn import CLASSES, Scenes
from .ridge import RIDGE, LinearHead, Moments

PATCH = 8
BATCH = 16
BLOCKS = 4  # the last ones of a network, whose tokens are concatenated
LABELLED = (20, 80, 320)
Describe = Callable[[Tensor], Tensor]  # normalised images [B, 3, H, W] -> features [B, D, H / 8, W / 8]


@dataclass(frozen=True)
class FeatureArm:
    """One row of the table.

    Attributes:
        title: As the table names it.
        describe: Features of images.
    """

    title: str
    describe: Describe


def network_features(trunk: Trunk) -> Describe:
    """Normalised patch tokens of the last four blocks, [B, 4 D, h, w], of a network in evaluation mode."""

    def describe(images: Tensor) -> Tensor:
        depth = min(BLOCKS, len(trunk.blocks))
        taps: Any = trunk.forward_intermediates(
            images, indices=depth, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return torch.cat(taps, 1).float()

    return describe


def raw_pixels(images: Tensor) -> Tensor:
    """The pixels of each patch themselves, [B, 192, h, w]."""
    return F.pixel_unshuffle(images, PATCH)


def position_alone(images: Tensor) -> Tensor:
    """One feature for each place of a patch, [B, h w, h, w]: the head becomes each place's mean, the position prior."""
    height, width = images.shape[-2] // PATCH, images.shape[-1] // PATCH
    places = torch.eye(height * width, device=images.device).unflatten(1, (height, width))
    return places.expand(len(images), -1, -1, -1)


TRIVIAL = {"raw pixels": raw_pixels, "position prior": position_alone}


def normalised(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """[B, H, W, 3] uint8 to ImageNet-normalised float32 [B, 3, H, W]."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std


def shares(labels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """How much of each patch is of which class: [B, H, W] uint8 to [B, C, H / 8, W / 8] float32, sums 1."""
    one_hot = F.one_hot(torch.from_numpy(labels).to(device).long(), len(CLASSES))
    return F.avg_pool2d(one_hot.permute(0, 3, 1, 2).float(), PATCH)


def _rows(grid: Tensor) -> Tensor:
    """[B, D, h, w] to [B h w, D]."""
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def sum_up(
    describe: Describe,
    labelled: Scenes,
    device: torch.device | str = "cpu",
    done: Callable[[int], None] = lambda scenes: None,
) -> Moments:
    """What the heads of all labelled scenes are computed from; every class has the same weight.

    Args:
        describe: The arm.
        labelled: At least one.
        device: Of the features.
        done: Told the number of scenes just finished.
    """
    weights = class_weights(labelled.labels).to(device)
    moments: Moments | None = None
    for begin in range(0, len(labelled), BATCH):
        batch = slice(begin, begin + BATCH)
        x = _rows(describe(normalised(labelled.images[batch], device)))
        y = _rows(shares(labelled.labels[batch], device))
        moments = moments or Moments(x.shape[1], len(CLASSES))
        moments.add(x, y, y @ weights)
        done(len(labelled.images[batch]))
    assert moments is not None
    return moments


def class_weights(labels: np.ndarray) -> Tensor:
    """What makes all classes of some label maps count the same: [C] float32, one over the share of the pixels."""
    pixels = np.bincount(labels.ravel(), minlength=len(CLASSES))
    return torch.from_numpy(
        np.divide(pixels.sum(), pixels, out=np.zeros(len(pixels)), where=pixels > 0)
    ).float()


@torch.no_grad()
def predict(
    describe: Describe, heads: Iterable[LinearHead], images: np.ndarray, device: Any = "cpu"
) -> Tensor:
    """Class of each pixel by each head, uint8 [heads, B, H, W]: scores enlarged (bilinear), then the largest."""
    features = describe(normalised(images, device))
    maps = []
    for head in heads:
        scores = torch.einsum("bdhw,dc->bchw", features, head.weight.to(device))
        scores = scores + head.bias.to(device).view(-1, 1, 1)
        enlarged = F.interpolate(scores, images.shape[1:3], mode="bilinear", align_corners=False)
        maps.append(enlarged.argmax(1).to(torch.uint8).cpu())
    return torch.stack(maps)


def confusions(labels: np.ndarray, predicted: Tensor) -> np.ndarray:
    """Counts of (true class, predicted class) in each scene: [N, H, W] twice to int64 [N, C, C]."""
    classes = len(CLASSES)
    index = torch.from_numpy(labels).long() * classes + predicted.long()
    return np.stack([np.bincount(scene.flatten(), minlength=classes**2) for scene in index]).reshape(
        -1, classes, classes
    )


@dataclass
class ArmReadout:
    """What the heads of one arm and one ridge say, by number of labelled scenes.

    Attributes:
        heads: The heads.
        confusions: int64 [val scenes, C, C].
    """

    heads: dict[int, LinearHead]
    confusions: dict[int, np.ndarray]


def read_out(
    arm: FeatureArm,
    labelled: Scenes,
    val: Scenes,
    counts: Iterable[int] = LABELLED,
    device: torch.device | str = "cpu",
    done: Callable[[int], None] = lambda scenes: None,
    ridges: Sequence[float] = (RIDGE,),
) -> list[ArmReadout]:
    """Fit an arm's heads on the first 20, the first 80, ... of the labelled scenes and count their confusions.

    Args:
        arm: The arm.
        labelled: At least as many scenes as the largest count.
        val: Scenes that no head has seen.
        counts: Numbers of labelled scenes.
        device: Of the features.
        done: Told the number of scenes just finished, labelled or not.
        ridges: For each, a read-out.
    """
    counts = sorted(counts)
    sums = {count: sum_up(arm.describe, labelled.first(count), device, done) for count in counts}
    heads = {(ridge, count): sums[count].solve(ridge) for ridge in ridges for count in counts}
    found: dict[tuple[float, int], list[np.ndarray]] = {key: [] for key in heads}
    for begin in range(0, len(val), BATCH):
        part = slice(begin, begin + BATCH)
        maps = predict(arm.describe, heads.values(), val.images[part], device)
        for key, predicted in zip(heads, maps, strict=True):
            found[key].append(confusions(val.labels[part], predicted))
        done(len(val.images[part]))
    return [
        ArmReadout(
            {count: heads[ridge, count] for count in counts},
            {count: np.concatenate(found[ridge, count]) for count in counts},
        )
        for ridge in ridges
    ]
