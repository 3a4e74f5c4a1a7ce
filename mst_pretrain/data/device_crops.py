"""Crops cut from decoded images where these are, on a GPU: all crops of an image by two products of matrices.

Every crop is resized as on the CPU (multicrop.py): bicubic, antialiased, along the rows first and rounded to 8 bits
in between. Where pixels differ it is by one level of 255, or two in fewer than one value of 10,000. The weights are made on the device from the boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resize_weights(starts: Tensor, lengths: Tensor, flips: Tensor, outputs: int, extent: int) -> Tensor:
    """Weights of the pixels along one side of an image for every pixel of crops [code: Pillow's Resample.c].

    Args:
        starts: [..., N] first pixel of each crop.
        lengths: [..., N] pixels of each crop, at least 1.
        flips: [..., N] bool, whether the crop is mirrored.
        outputs: Pixels of the resized crop.
        extent: Pixels of the image.

    Returns:
        [..., N, outputs, extent] float32; those of an output pixel add up to 1.
    """
    device = starts.device
    starts, lengths = (values.float()[..., None, None] for values in (starts, lengths))
    place = torch.arange(outputs, dtype=torch.float32, device=device)[:, None]
    place = torch.where(flips[..., None, None], outputs - 1 - place, place)
    pixel = torch.arange(extent, dtype=torch.float32, device=device) - starts
    scale = lengths / outputs
    reach = scale.clamp(min=1)
    weights = _bicubic((pixel + 0.5 - (place + 0.5) * scale) / reach)
    weights = weights * ((pixel >= 0) & (pixel < lengths))
    return weights / weights.sum(-1, keepdim=True)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def cut_on_device(images: Tensor, boxes: Tensor, flips: Tensor, height: int, width: int) -> Tensor:
    """Crops of one size.

    Args:
        images: [B, 3, H, W] uint8; smaller images fill the upper left corner.
        boxes: [B, N, 4] left, top, width and height of the crops, each within its image.
        flips: [B, N] bool.
        height: Of the crops.
        width: Of the crops.

    Returns:
        [B, N, 3, height, width] uint8.
    """
    count = flips.shape[1]
    left, top, wide, high = boxes.unbind(-1)
    dtype = torch.float16 if images.is_cuda else torch.float32
    across = resize_weights(left, wide, flips, width, images.shape[3]).to(dtype)
    down = resize_weights(top, high, torch.zeros_like(flips), height, images.shape[2]).to(dtype)
    rows = images.to(dtype).flatten(1, 2) @ across.flatten(1, 2).transpose(1, 2)  # [B, 3 * H, N * width]
    rows = _to_levels(rows).to(dtype).unflatten(1, (3, -1)).unflatten(3, (count, width))
    crops = torch.einsum("bnyh,bchnx->bncyx", down, rows)
    return _to_levels(crops).to(torch.uint8)


def _to_levels(values: Tensor) -> Tensor:
    return values.float().add_(0.5).floor_().clamp_(0, 255)
