"""Crops cut where the decoded images are, on a GPU: all crops of many images by two products of matrices.

Each crop is resized by the integers that PyTorch's 8-bit bicubic resize uses on a CPU (multicrop.py): antialiased,
along the rows first, rounded to 8 bits in between. So the two are equal, but for ties of a weight's last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resize_weights(
    starts: Tensor, lengths: Tensor, flips: Tensor, outputs: int, extent: int
) -> tuple[Tensor, Tensor]:
    """Weights of the pixels along one side of an image for every pixel of crops, as whole numbers of 16 bits.

    Args:
        starts: [B, N] first pixel of each crop.
        lengths: [B, N] pixels of each crop, at least 1.
        flips: [B, N] bool, whether the crop is mirrored.
        outputs: Pixels of the resized crop.
        extent: Pixels of the image.

    Returns:
        [B, N, outputs, extent] float32, and what those of an output pixel add up to, a power of two: [B, N] float32.
    """
    starts, lengths = (values.float()[..., None, None] for values in (starts, lengths))
    place = torch.arange(outputs, dtype=torch.float32, device=starts.device)[:, None]
    place = torch.where(flips[..., None, None], outputs - 1 - place, place)
    pixel = torch.arange(extent, dtype=torch.float32, device=starts.device) - starts
    # Centers of pixels in units of half an output pixel: whole numbers; float32 would miss some weights' last bit
    distance = (2 * pixel + 1) * outputs - (2 * place + 1) * lengths
    weights = _bicubic(distance.double() / (2 * lengths.clamp(min=outputs)))
    weights *= (pixel >= 0) & (pixel < lengths)
    weights /= weights.sum(-1, keepdim=True)
    # The most bits at which the largest weight still fits into 16
    bits = torch.floor(torch.log2((2**15 - 0.5) / weights.amax((-2, -1)))).clamp(max=22)
    one = torch.exp2(bits)
    return weights.mul_(one[..., None, None]).round_().float(), one.float()


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
        boxes: [B, N, 4] left, top, right and bottom of the crops, each within its image.
        flips: [B, N] bool.
        height: Of the crops.
        width: Of the crops.

    Returns:
        [B, N, 3, height, width] uint8.
    """
    left, top, right, bottom = boxes.unbind(-1)
    across, one = resize_weights(left, right - left, flips, width, images.shape[3])
    # Sums of these whole numbers stay below 2^24, where float32 is exact, up to a reduction by 2, and near it beyond
    rows = images.float().flatten(1, 2) @ across.flatten(1, 2).transpose(1, 2)  # [B, 3 * H, N * width]
    rows = rows.unflatten(1, (3, -1)).unflatten(3, (-1, width))  # [B, 3, H, N, width]
    rows = _to_levels(rows, one[:, None, None, :, None])
    down, one = resize_weights(top, bottom - top, torch.zeros_like(flips), height, images.shape[2])
    # b image, n crop, y row of the crop, h row of the image, c channel, x column of the crop
    crops = torch.einsum("bnyh,bchnx->bncyx", down, rows)
    return _to_levels(crops, one[..., None, None, None]).to(torch.uint8)


def _to_levels(values: Tensor, one: Tensor) -> Tensor:
    return values.div_(one).add_(0.5).floor_().clamp_(0, 255)
