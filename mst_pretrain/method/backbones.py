"""timm trunks as MST needs them: global feature, patch grid, attention map; mask tokens enter here.

The trunks stay plain timm models, so a checkpoint's ``teacher.backbone.`` keys are timm keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..checkpoints.choices import TIMM
from ..runtime.errors import UserError
from .proven import Trunk, create_trunk
from .vit_tokens import attend, check_rule, embed_tokens, query_key, run_block, scale_branch


@dataclass
class Features:
    """Output of :func:`forward_trunk` for B images whose last token grid is h x w.

    Attributes:
        pooled: [B, D]. ViT: normalised [CLS]. Swin: mean of the normalised last-stage tokens [code: EsViT].
        grid: [B, D, h, w] normalised patch tokens, masked and visible.
        attention: [B, h, w] float32, or None when it was not asked for. See :func:`vit_attention_map`
            and :func:`swin_attention_map`.
    """

    pooled: Tensor
    grid: Tensor
    attention: Tensor | None = None


def build_trunk(name: str, positions: str = TIMM, **overrides: Any) -> Trunk:
    """A timm ViT or Swin without classifier that takes any image size divisible by its patch.

    A Swin follows the original's rule: a stage whose map fits one window at the built image size does not shift.
    Built for 224, a 96-px crop meets grids 24, 12, 6 and 3, each padded to whole windows of 7. An ``img_size`` at which
    timm's rule differs from the original's is refused.

    Args:
        name: timm model name, e.g. ``vit_small_patch16_224`` or ``swin_tiny_patch4_window7_224``.
        positions: How a ViT's positions are resized; see :func:`mst_pretrain.method.vit_tokens.resize_positions`.
        overrides: Arguments of the timm model (``embed_dim``, ``depth``, ``drop_path_rate``, ...).

    Raises:
        UserError: See :func:`create_trunk`; or it is a ViT without [CLS], or without a norm of its last tokens.
    """
    any_size: dict[str, Any] = (
        {"strict_img_size": False} if name.startswith("swin_") else {"dynamic_img_size": True}
    )
    trunk = create_trunk(name, **any_size, **overrides)
    if not isinstance(trunk, SwinTransformer) and trunk.cls_token is None:
        raise UserError(
            f"'{name}' has no [CLS] token; MST needs a ViT with a [CLS] token or a Swin. As a backbone of detection or "
            "segmentation, MSTVisionTransformer takes it."
        )
    if isinstance(trunk.norm, nn.Identity):
        raise UserError(
            f"'{name}' does not normalise its last tokens, which MST reads: its norm comes after the pooling "
            "(global_pool='avg') or nowhere (final_norm=False). Leave these arguments out, or take another model."
        )
    if not isinstance(trunk, SwinTransformer):
        trunk.attn_pool = None  # of pooled features: parameters without gradient would stop DDP
        trunk.positions = check_rule(positions)
        if positions != TIMM:  # what other files do not say is not compared
            trunk.architecture["positions"] = positions
    return trunk


def choose_attention(model: nn.Module, device: torch.device) -> None:
    """In bfloat16 on a CPU, let every timm attention multiply, normalise and multiply: no fused kernel of torch.

    There, forward and backward of 17 to 197 tokens of width 64 are 3 to 11 times as fast. Elsewhere nothing changes.

    Args:
        model: Holds the trunks.
        device: Of the images. Whether the step runs in bfloat16 is read from the surrounding autocast region.
    """
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]


def output_stride(trunk: Trunk) -> int:
    """Pixels per side of one token of the last grid: 16 for ViT/16, 32 for Swin."""
    patch = trunk.patch_embed.patch_size[0]
    return patch * 2 ** (len(trunk.layers) - 1) if isinstance(trunk, SwinTransformer) else patch


def forward_trunk(
    trunk: Trunk,
    images: Tensor,
    mask: Tensor | None = None,
    mask_token: Tensor | None = None,
    with_attention: bool = False,
    compiled_block: Callable[..., Tensor] | None = None,
) -> Features:
    """Run a trunk, tokens under ``mask`` replaced by ``mask_token`` after projection, before position.

    Args:
        trunk: From :func:`build_trunk`.
        images: [B, 3, H, W] float, H and W divisible by the output stride.
        mask: [B, h, w] bool over the **last** grid, True = hidden. For Swin one element covers a whole
            stage-4 token, i.e. 8 x 8 patches of stage 1.
        mask_token: [C], as wide as a token right after patch projection.
        with_attention: Also compute the last block's attention map.
        compiled_block: :func:`residual_block`, compiled, which runs every block; None calls the blocks as they are.

    Raises:
        ValueError: The image does not divide into the grid, or the mask has another shape.
    """
    height, width = images.shape[-2:]
    stride = output_stride(trunk)
    if not isinstance(trunk, SwinTransformer) and (height % stride or width % stride):
        raise ValueError(f"image {height}x{width} is not divisible by the patch size {stride}")
    tokens = trunk.patch_embed(images)  # [B, gh, gw, C], channels last for both families
    if mask is not None:
        if mask_token is None:
            raise ValueError("a mask needs a mask_token")
        tokens = _hide(tokens, mask, mask_token, stride // trunk.patch_embed.patch_size[0])
    forward = _forward_swin if isinstance(trunk, SwinTransformer) else _forward_vit
    return forward(trunk, tokens, with_attention, partial(_run, compiled_block))


def _hide(tokens: Tensor, mask: Tensor, mask_token: Tensor, unit: int) -> Tensor:
    """Replace tokens [B, gh, gw, C] where the mask [B, gh / unit, gw / unit] is True; it hides unit x unit each."""
    expected = (mask.shape[0], mask.shape[1] * unit, mask.shape[2] * unit)
    if expected != tuple(tokens.shape[:3]):
        raise ValueError(
            f"mask {tuple(mask.shape)} in units of {unit} x {unit} tokens does not tile the token grid "
            f"{tuple(tokens.shape[:3])}; the image's sides must be divisible by the output stride"
        )
    mask = mask.repeat_interleave(unit, 1).repeat_interleave(unit, 2)
    return torch.where(mask.unsqueeze(-1), mask_token.to(tokens.dtype), tokens)


def _forward_vit(trunk: Trunk, tokens: Tensor, with_attention: bool, run: Callable[..., Tensor]) -> Features:
    height, width = tokens.shape[1:3]
    x, rope = embed_tokens(trunk, tokens, trunk.positions)
    for block in trunk.blocks[:-1]:
        x = run(block, x, trunk.grad_checkpointing, rope)
    attention = vit_attention_map(trunk.blocks[-1], x, height, width, rope) if with_attention else None
    x = trunk.norm(run(trunk.blocks[-1], x, trunk.grad_checkpointing, rope))
    grid = x[:, trunk.num_prefix_tokens :].transpose(1, 2).unflatten(2, (height, width))
    return Features(x[:, 0], grid, attention)


def _run(
    compiled: Callable[..., Tensor] | None,
    block: Any,
    x: Tensor,
    checkpointing: bool,
    rope: Tensor | None = None,
) -> Tensor:
    """One block; with gradient checkpointing its activations are computed again in the backward pass."""
    call = partial(run_block, block) if compiled is None else partial(_run_compiled, compiled, block)
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(call, x, rope, use_reentrant=False)
    return call(x, rope)


def _run_compiled(compiled: Callable[..., Tensor], block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
    """What differs between blocks of one width, done here: the probability of drop path, and the shift."""
    shape = (len(x), *[1] * (x.ndim - 1))
    # Never one tensor for both branches, which would be another graph
    keep = [path(x.new_ones(shape)) for path in (block.drop_path1, block.drop_path2)]
    if not isinstance(block, SwinTransformerBlock):
        return compiled(block, x, *keep, rope)
    shift, window = block.shift_size, block.window_size
    height, width = (side + -side % part for side, part in zip(x.shape[1:3], window, strict=True))
    if not any(shift):
        windows, area = height * width // block.window_area, block.window_area
        return compiled(block, x, *keep, x.new_zeros(windows, area, area))
    mask = block.get_attn_mask(x.new_empty(1, height, width, 1))
    x = compiled(block, x.roll((-shift[0], -shift[1]), (1, 2)), *keep, mask)
    return x.roll(shift, (1, 2))


def residual_block(
    block: Any, x: Tensor, keep_attention: Tensor, keep_mlp: Tensor, beside: Tensor | None
) -> Tensor:
    """What timm's ``block(x)`` computes, without shift and drop path: compiled once for all blocks of one shape.

    Args:
        block: timm ViT or Swin block.
        x: [B, n, C] of a ViT, or [B, h, w, C] of a Swin, shifted: the block's input.
        keep_attention: [B, 1, ...] factors of the attention branch: 0, or 1 over the probability to keep it.
        keep_mlp: The same of the MLP branch.
        beside: Of a Swin, the mask [windows, area, area], added to the scores between a window's tokens; of a DINOv3,
            the rotation; None of another ViT.

    Returns:
        Of the shape of ``x``.
    """
    if isinstance(block, SwinTransformerBlock):
        x = x + keep_attention * _attend_in_windows(block, block.norm1(x), beside)
        return x + keep_mlp * block.mlp(block.norm2(x))
    x = x + keep_attention * attend(block, block.norm1(x), beside)
    return x + keep_mlp * scale_branch(block, 2, block.mlp(block.norm2(x)))


def _attend_in_windows(block: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    _, height, width, _ = x.shape
    window = block.window_size
    x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    attended = block.attn(window_partition(x, window).flatten(1, 2), mask).unflatten(1, window)
    return window_reverse(attended, window, *x.shape[1:3])[:, :height, :width]


def vit_attention_map(block: Any, x: Tensor, height: int, width: int, rope: Tensor | None = None) -> Tensor:
    """The [CLS] row of a block's attention to the patches, without [CLS] and registers, mean over heads [summary].

    Args:
        block: timm ViT block.
        x: [B, prefix + h * w, C], the block's input.
        height: h of the patch grid.
        width: w of the patch grid.
        rope: Rotation of the patches' queries and keys, or None.

    Returns:
        [B, h, w] float32.
    """
    attn = block.attn
    batch, length, _ = x.shape
    query, key = query_key(attn, block.norm1(x), rope)
    with torch.autocast(x.device.type, enabled=False):
        # b image, n head, k key token, d channel of a head; the query is [CLS] alone
        scores = torch.einsum("bnd,bknd->bnk", query[:, 0].float(), key.float()) * attn.scale
        row = scores.softmax(-1).mean(1)
    return row[:, length - height * width :].reshape(batch, height, width)


def _forward_swin(trunk: Trunk, x: Tensor, with_attention: bool, run: Callable[..., Tensor]) -> Features:
    attention = None
    for layer in trunk.layers:
        x = layer.downsample(x)
        for block in layer.blocks:
            if with_attention and block is trunk.layers[-1].blocks[-1]:
                attention = swin_attention_map(block, x)
            x = run(block, x, layer.grad_checkpointing)
    x = trunk.norm(x)
    return Features(x.mean((1, 2)), x.permute(0, 3, 1, 2), attention)


def swin_attention_map(block: Any, x: Tensor) -> Tensor:
    """How much each token of a window block is attended to: mean over heads and the window's real queries [ours].

    Args:
        block: timm Swin block; at 224 the last block of stage 4, one 7x7 window without shift.
        x: [B, h, w, C], the block's input.

    Returns:
        [B, h, w] float32.
    """
    _, height, width, _ = x.shape
    window, shift = block.window_size, block.shift_size
    y = torch.roll(block.norm1(x), (-shift[0], -shift[1]), (1, 2))
    y = F.pad(y, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    padded_height, padded_width = y.shape[1:3]
    bias_mask = block.get_attn_mask(y)
    attn = block.attn
    qkv = attn.qkv(window_partition(y, window).flatten(1, 2)).unflatten(2, (3, attn.num_heads, -1))
    with torch.autocast(x.device.type, enabled=False):
        query, key = qkv[:, :, 0].float() * attn.scale, qkv[:, :, 1].float()
        # w window, q query token, k key token, n head, d channel of a head
        scores = torch.einsum("wqnd,wknd->wnqk", query, key) + attn._get_rel_pos_bias().float()
        if bias_mask is not None:
            windows = bias_mask.shape[0]
            scores = (scores.unflatten(0, (-1, windows)) + bias_mask.float()[None, :, None]).flatten(0, 1)
        weights = scores.softmax(-1).mean(1)
        # padding fills up the windows; a padded position is not a token and does not count as a query
        real = F.pad(
            weights.new_ones(1, height, width, 1),
            (0, 0, 0, padded_width - width, 0, padded_height - height),
        )
        real = window_partition(real, window).flatten(1)
        weights = weights.unflatten(0, (-1, len(real)))
        received = torch.einsum("bwqk,wq->bwk", weights, real / real.sum(1, keepdim=True))
        received = received.reshape(-1, window[0], window[1], 1)
        whole = window_reverse(received, window, padded_height, padded_width)[:, :height, :width, 0]
        return torch.roll(whole, (shift[0], shift[1]), (1, 2))
