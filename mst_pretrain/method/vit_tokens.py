"""What timm's ViTs differ in before and inside a block: positions, tokens before the patches, rotation, LayerScale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import apply_rot_embed_cat, resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.choices import DINO, POSITION_RULES, TIMM
from ..runtime.errors import InvalidValue


def check_rule(rule: str) -> str:
    """The rule, or InvalidValue where there is none of that name."""
    if rule not in POSITION_RULES:
        raise InvalidValue(
            f"positions must be {', '.join(POSITION_RULES[:-1])} or {POSITION_RULES[-1]}, got '{rule}'"
        )
    return rule


def resize_positions(
    positions: Tensor, grid: Sequence[int], old: Sequence[int], prefix: int, rule: str
) -> Tensor:
    """Learned positions for another grid, bicubic and in float32; on their own grid they stay as they are.

    - ``mmseg``: to the grid itself, without antialiasing [code: mmseg, MAE, transformers' ViT and DINOv2].
    - ``timm``: to the grid itself, antialiased [code: timm, DINOv2 with registers].
    - ``dino``: by the factor (side + 0.1) / old side, without antialiasing [code: DINO, iBOT, DINOv2].

    Args:
        positions: [1, prefix + old rows * old columns, D].
        grid: (rows, columns) wanted.
        old: (rows, columns) that they are for.
        prefix: Tokens before the patches that have a position; theirs is not changed.
        rule: One of :data:`POSITION_RULES`.

    Returns:
        [1, prefix + rows * columns, D].
    """
    if tuple(grid) == tuple(old):
        return positions
    if check_rule(rule) != DINO:
        return resample_abs_pos_embed(
            positions,
            new_size=list(grid),
            old_size=list(old),
            num_prefix_tokens=prefix,
            antialias=rule == TIMM,
        )
    maps = positions[:, prefix:].float().transpose(1, 2).unflatten(2, tuple(old))
    scale = tuple((new + 0.1) / before for new, before in zip(grid, old, strict=True))
    resized = F.interpolate(maps, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :prefix], resized.to(positions.dtype)], 1)


def embed_tokens(trunk: Any, patches: Tensor, rule: str) -> tuple[Tensor, Tensor | None]:
    """What enters a ViT's first block, and the rotation that its attention wants beside it.

    Args:
        trunk: timm ViT of one of the families of :mod:`mst_pretrain.method.proven`.
        patches: [B, h, w, D] after projection.
        rule: Of resizing learned positions; without these it changes nothing.

    Returns:
        Tokens [B, prefix + h * w, D], and [h * w, 2 d] sines and cosines of a head of width d, or None.
    """
    grid = tuple(patches.shape[1:3])
    special = (getattr(trunk, name, None) for name in ("cls_token", "dist_token", "reg_token"))
    # len() would fix the batch of an exported graph
    parts = [token.expand(patches.shape[0], -1, -1) for token in special if token is not None]
    x = patches.flatten(1, 2)
    positions = trunk.pos_embed
    if positions is None:
        x = torch.cat([*parts, x], 1)
    else:
        prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
        positions = resize_positions(positions, grid, trunk.patch_embed.grid_size, prefix, rule)
        if trunk.no_embed_class:
            x = torch.cat([*parts, x + positions], 1)
        else:
            x = torch.cat([*parts, x], 1) + positions
    rope = getattr(trunk, "rope", None)
    dropped = (
        positions is not None or rope is not None
    )  # timm's plain ViT without positions has no dropout here
    x = trunk.norm_pre(trunk.pos_drop(x) if dropped else x)
    return x, None if rope is None else rope.get_embed(shape=list(grid))


def run_block(block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
    """timm's block, with the rotation that a DINOv3's wants: without it every key matches and the features differ."""
    return block(x) if rope is None else block(x, rope=rope)


def attend(block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
    """A block's attention of normalised tokens, scaled by its LayerScale; without drop path."""
    return scale_branch(block, 1, block.attn(x) if rope is None else block.attn(x, rope=rope))


def scale_branch(block: Any, number: int, x: Tensor) -> Tensor:
    """LayerScale of a block's first (attention) or second (MLP) branch; a block without one changes nothing."""
    if hasattr(block, f"gamma_{number}"):  # of timm's Eva
        gamma = getattr(block, f"gamma_{number}")
        return x if gamma is None else gamma * x
    return getattr(block, f"ls{number}")(x)


def query_key(attn: Any, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries and keys [B, L, heads, d] of normalised tokens [B, L, D], keys and queries of patches rotated.

    Args:
        attn: timm's attention.
        x: [B, prefix + n, D].
        rope: [n, 2 d], or None.
    """
    bias = attn.qkv.bias
    if getattr(attn, "q_bias", None) is not None:
        bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    qkv = F.linear(x, attn.qkv.weight, bias).unflatten(2, (3, attn.num_heads, attn.head_dim))
    query, key = attn.q_norm(qkv[:, :, 0]), attn.k_norm(qkv[:, :, 1])
    if rope is None:
        return query, key
    first, half = x.shape[1] - rope.shape[0], attn.rotate_half
    turned = [
        torch.cat([y[:, :first], apply_rot_embed_cat(y[:, first:], rope[:, None], half=half).to(y.dtype)], 1)
        for y in (query, key)
    ]
    return turned[0], turned[1]
