"""Crops by products of matrices beside those that are cut on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mst_pretrain.data.device_crops import cut_on_device, resize_weights


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth shapes under noise."""
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64)
    return (smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 96), (224, 224), (40, 64)], ids=str)
@pytest.mark.usefixtures("one_thread")
def test_crops_are_the_cpus(size: tuple[int, int]) -> None:
    """What a network sees would depend on where its images are decoded."""
    rng = np.random.default_rng(0)
    canvas = np.zeros((3, 300, 400, 3), np.uint8)
    shapes = [(300, 400), (180, 240), (37, 390)]
    for image, (height, width) in zip(canvas, shapes, strict=True):
        image[:height, :width] = picture(rng, height, width)
    boxes, flips = np.zeros((3, 8, 4), np.int64), rng.random((3, 8)) < 0.5
    for own, (height, width) in zip(boxes, shapes, strict=True):
        sides = np.stack([rng.integers(1, width + 1, 8), rng.integers(1, height + 1, 8)], 1)
        start = rng.integers(0, np.array([width, height]) - sides + 1)
        own[:] = np.concatenate([start, start + sides], 1)
    pixels = torch.from_numpy(canvas).permute(0, 3, 1, 2)
    got = cut_on_device(pixels, torch.from_numpy(boxes), torch.from_numpy(flips), *size)
    assert got.shape == (3, 8, 3, *size) and got.dtype == torch.uint8
    for image, own, mirrored, crops in zip(canvas, boxes, flips, got, strict=True):
        for (left, top, right, bottom), flip, crop in zip(own, mirrored, crops, strict=True):
            part = torch.from_numpy(image[top:bottom, left:right]).permute(2, 0, 1)[None]
            expected = F.interpolate(part, size, mode="bicubic", antialias=True)[0]
            expected = expected.flip(2) if flip else expected
            difference = (crop.int() - expected.int()).abs()
            assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-4


def test_weights_of_a_pixel_add_up_to_one() -> None:
    """Crops would be darker at their borders, or mixed with pixels beyond them."""
    weights, one = resize_weights(
        torch.tensor([[0, 7]]), torch.tensor([[3, 50]]), torch.tensor([[False, True]]), 20, 60
    )
    assert (weights.abs() < 2**15).all() and torch.equal(one.log2(), one.log2().round())
    assert (weights.sum(-1) / one[..., None] - 1).abs().max() < 1e-3
    assert (
        not weights[0, 0, :, 3:].any() and not weights[0, 1, :, :7].any() and not weights[0, 1, :, 57:].any()
    )
