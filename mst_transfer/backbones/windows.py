"""Attention inside windows, for plain ViTs on large images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mst_pretrain.method.vit_tokens import scale_branch


def run_in_windows(
    block: Any, x: Tensor, height: int, width: int, window: int, rope: Tensor | None = None
) -> Tensor:
    """A plain ViT block whose attention stays inside windows, as ViTDet's; its other parts are per token anyway.

    Args:
        block: timm ViT block.
        x: [B, prefix + height * width, D] float.
        height: Rows of the patch grid.
        width: Columns of the patch grid.
        window: Patches per side of a window.
        rope: [height * width, ...] rotation of the patches, or None.

    Returns:
        The shape of ``x``. Equal to ``block(x)`` where one window covers the grid.
    """
    attended = windowed_attention(block.attn, block.norm1(x), height, width, window, rope)
    x = x + block.drop_path1(scale_branch(block, 1, attended))
    return x + block.drop_path2(scale_branch(block, 2, block.mlp(block.norm2(x))))


def windowed_attention(
    attn: Any, x: Tensor, height: int, width: int, window: int, rope: Tensor | None = None
) -> Tensor:
    """``attn`` inside windows that tile the grid from its upper left corner.

    Windows at the right and lower border are as small as what is left, where ViTDet pads them with zeros and attends
    to these [ours]: so weights pretrained without windows meet no unknown tokens. Tokens before the patches ([CLS],
    registers), which ViTDet drops, take part in every window; they become the mean of the windows' answers, weighted
    by their patches [ours].

    Args:
        attn: Self-attention of [N, L, D] tokens.
        x: [B, prefix + height * width, D] float.
        height: Rows of the patch grid.
        width: Columns of the patch grid.
        window: Patches per side of a window.
        rope: [height * width, ...] rotation of the patches; each keeps that of its place in the whole grid.

    Returns:
        The shape of ``x``.
    """
    batch, length, channels = x.shape
    prefix = length - height * width
    special, grid = x[:, :prefix], x[:, prefix:].unflatten(1, (height, width))
    answers, bands = torch.zeros_like(special), []
    for top, bottom, rows in _spans(height, window):
        parts = []
        for left, right, columns in _spans(width, window):
            windows = _cut(grid[:, top:bottom, left:right], rows, columns)
            count = windows.shape[1] * windows.shape[2]
            repeated = special[:, None].expand(-1, count, -1, -1)
            tokens = torch.cat([repeated, windows.flatten(1, 2)], 2).flatten(0, 1)
            if rope is None:
                y = attn(tokens)
            else:
                turns = _cut(rope.unflatten(0, (1, height, width))[:, top:bottom, left:right], rows, columns)
                y = attn(tokens, rope=turns.flatten(0, 2).repeat(batch, 1, 1)[:, None])
            y = y.unflatten(0, (batch, count))
            answers = answers + y[:, :, :prefix].sum(1) * (rows * columns / (height * width))
            y = y[:, :, prefix:].unflatten(1, windows.shape[1:3]).unflatten(3, (rows, columns))
            parts.append(y.transpose(2, 3).reshape(batch, bottom - top, right - left, channels))
        bands.append(torch.cat(parts, 2))
    return torch.cat([answers, torch.cat(bands, 1).flatten(1, 2)], 1)


def _cut(part: Tensor, rows: int, columns: int) -> Tensor:
    """[B, h, w, D] to windows [B, i, j, rows * columns, D]."""
    # i j window, r c patch in its window
    windows = part.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))  # b i r j c d
    return windows.transpose(2, 3).flatten(3, 4)


def _spans(length: int, window: int) -> list[tuple[int, int, int]]:
    """(start, end, side of a window) of the whole windows, then of what is left."""
    whole = length - length % window
    return [span for span in ((0, whole, window), (whole, length, length - whole)) if span[0] < span[1]]
