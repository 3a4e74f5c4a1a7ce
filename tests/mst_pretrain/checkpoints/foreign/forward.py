"""What the projects of ``files.py`` compute from their checkpoints: forwards that read their keys alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .files import (
    State,
    Swin,
    ViT,
    attention_mask,
    backbone,
    check,
    shift_of,
    windows_of,
)


def linear(x: Tensor, w: State, name: str) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(x: Tensor, w: State, name: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def attend(x: Tensor, w: State, name: str, heads: int, bias: Tensor | None = None) -> Tensor:
    """[B, N, C] to [B, N, C]; bias is added to the scores [B, heads, N, N]."""
    batch, count, width = x.shape
    q, k, v = linear(x, w, f"{name}.qkv").view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
    mixed = (scores if bias is None else scores + bias).softmax(-1) @ v
    return linear(mixed.transpose(1, 2).reshape(batch, count, width), w, f"{name}.proj")


def mlp(x: Tensor, w: State, name: str) -> Tensor:
    return linear(F.gelu(linear(x, w, f"{name}.fc1")), w, f"{name}.fc2")


def patch_positions(format: str, positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """[1, n, C] without the class token's to [1, h * w, C], resized as the project does."""
    side = math.isqrt(positions.shape[1])
    if grid == (side, side):
        return positions
    square = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if format.startswith(("dino", "ibot")):  # a scale with a tenth added, and sampling follows that scale
        scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        square = F.interpolate(square, scale_factor=scale, mode="bicubic")
    else:  # MAE and detectron2; MoBY's own code has one size only
        square = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return square.flatten(2).transpose(1, 2)


def vit_features(format: str, vit: ViT, w: State, images: Tensor) -> Tensor:
    eps, detector = 1e-6, format == "detectron2"
    x = F.conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=vit.patch)
    grid, positions = (x.shape[2], x.shape[3]), w["pos_embed"]
    x = x.flatten(2).transpose(1, 2) + patch_positions(format, positions[:, 1:], grid)
    if not detector:
        x = torch.cat([(w["cls_token"] + positions[:, :1]).expand(len(x), -1, -1), x], dim=1)
    for index in range(vit.depth):
        name = f"blocks.{index}"
        x = x + attend(norm(x, w, f"{name}.norm1", eps), w, f"{name}.attn", vit.heads)
        x = x + mlp(norm(x, w, f"{name}.norm2", eps), w, f"{name}.mlp")
    return x if detector else norm(x, w, "norm", eps)


def window_attention(x: Tensor, w: State, name: str, heads: int, window: tuple[int, int, int]) -> Tensor:
    """[B, H, W, C] to the same: pad to whole windows, shift, attend, undo. Padding takes part as keys.

    window: its side, the shift, and the side of the map that the network was built for.
    """
    (side, shift, built), (batch, height, width, channels) = window, x.shape
    padded = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    rows, columns = padded.shape[1:3]
    index, table = w[f"{name}.relative_position_index"], w[f"{name}.relative_position_bias_table"]
    bias = table[index.flatten()].view(side**2, side**2, heads).permute(2, 0, 1)[None]
    if shift:
        mask = w.get(f"{name.removesuffix('.attn')}.attn_mask")  # saved for the built size only
        if mask is None or (rows, columns) != (built, built):
            mask = attention_mask(rows, columns, side, shift)
        bias = bias + mask.to(x).repeat(batch, 1, 1)[:, None]
    y = attend(windows_of(padded.roll((-shift, -shift), (1, 2)), side), w, name, heads, bias)
    y = y.view(batch, rows // side, columns // side, side, side, channels).transpose(2, 3)
    y = y.reshape(batch, rows, columns, channels).roll((shift, shift), (1, 2))
    return y[:, :height, :width]


def merge(x: Tensor, w: State, name: str, eps: float) -> Tensor:
    """2 x 2 neighbours side by side, the column of two before the row; odd sides are padded."""
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
    return linear(norm(x, w, f"{name}.norm", eps), w, f"{name}.reduction")


def swin_eps(format: str) -> float:
    """iBOT and EsViT pass their own; MoBY, the original and detectron2 take LayerNorm's default."""
    return 1e-6 if format in ("ibot", "ibot-teacher", "esvit") else 1e-5


def swin_maps(format: str, swin: Swin, w: State, images: Tensor) -> list[Tensor]:
    """Outputs [B, H, W, C] of the stages, before merging and before any output norm."""
    detector, eps = format == "detectron2", swin_eps(format)
    if detector:  # the others drop the remainder of a size that 4 does not divide
        images = F.pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
    x = F.conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4)
    x, maps = norm(x.permute(0, 2, 3, 1), w, "patch_embed.norm", eps), []
    for stage, (depth, heads) in enumerate(zip(swin.depths, swin.heads, strict=True)):
        built = swin.image // 4 // 2**stage
        window = swin.window if detector else min(swin.window, built)
        for index in range(depth):
            name, shift = f"layers.{stage}.blocks.{index}", shift_of(swin, stage, index, detector)
            y = norm(x, w, f"{name}.norm1", eps)
            x = x + window_attention(y, w, f"{name}.attn", heads, (window, shift, built))
            x = x + mlp(norm(x, w, f"{name}.norm2", eps), w, f"{name}.mlp")
        maps.append(x)
        if stage + 1 < len(swin.depths):
            x = merge(x, w, f"layers.{stage}.downsample", eps)
    return maps


def weights(format: str, architecture: str, checkpoint: Any, images: Tensor, which: str) -> State:
    tensors = backbone(format, architecture, checkpoint, which)
    return {key: value.to(images) if value.is_floating_point() else value for key, value in tensors.items()}


def swin_stages(
    format: str, architecture: str, checkpoint: Any, images: Tensor, which: str, output_norms: bool = False
) -> list[Tensor]:
    """Four maps [B, C, h, w]; with ``output_norms`` after detectron2's norm0 to norm3: its p0 to p3."""
    model, w = check(format, architecture, which), weights(format, architecture, checkpoint, images, which)
    assert isinstance(model, Swin), f"{architecture!r} has no stages"
    maps = swin_maps(format, model, w, images)
    if output_norms:
        maps = [norm(x, w, f"norm{stage}", swin_eps(format)) for stage, x in enumerate(maps)]
    return [x.permute(0, 3, 1, 2).contiguous() for x in maps]


def features(format: str, architecture: str, checkpoint: Any, images: Tensor, which: str) -> Tensor:
    """Tokens [B, 1 + h * w, D] of a ViT, [B, h * w, D] of a Swin's last stage, after the final norm.

    detectron2: [B, h * w, D], no norm; its ViT without class token, with global attention in every block.
    images: [B, 3, H, W], normalised, float32 or float64; the weights follow its dtype.
    """
    model, w = check(format, architecture, which), weights(format, architecture, checkpoint, images, which)
    if isinstance(model, ViT):
        return vit_features(format, model, w, images)
    x = swin_maps(format, model, w, images)[-1].flatten(1, 2)
    return x if format == "detectron2" else norm(x, w, "norm", swin_eps(format))
