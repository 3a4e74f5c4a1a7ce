"""Swin as a backbone of four scales, any image size, with mmdet's rule of shifting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mst_pretrain.method.proven import create_trunk
from mst_pretrain.runtime.errors import InvalidValue

from .base import TrunkBackbone, freeze, pad_to_multiple


class PadThenShiftBlock(SwinTransformerBlock):
    """timm's block with mmdet's order: pad to whole windows, then shift, with the mask of the padded map.

    timm shifts first and pads after, which gives other values where the map is not a multiple of the window.
    """

    def _attn(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        (rows, columns), shift = self.window_size, self.shift_size
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded_height, padded_width = x.shape[1:3]
        shifted = any(shift)
        if shifted:
            x = torch.roll(x, shifts=(-shift[0], -shift[1]), dims=(1, 2))
        windows = window_partition(x, self.window_size).view(-1, self.window_area, channels)
        windows = self.attn(windows, mask=self.get_attn_mask(x) if shifted else None)
        x = window_reverse(
            windows.view(-1, rows, columns, channels), self.window_size, padded_height, padded_width
        )
        if shifted:
            x = torch.roll(x, shifts=shift, dims=(1, 2))
        return x[:, :height, :width].contiguous()


@MODELS.register_module()
class MSTSwin(TrunkBackbone):
    """timm's Swin with the values of mmdet's SwinTransformer at every image size.

    Every second block shifts, also where the map fits one window; the pretraining trunk does not shift there (the
    original's rule), so the last stage of the same weights differs between the two. Each output has a LayerNorm of
    its own; the trunk's last norm is not used.

    Args:
        model: timm name.
        model_args: Arguments that differ from the named model's.
        out_indices: Stages returned, strides 4, 8, 16, 32.
        frozen_stages: -1 trains all; 0 freezes the patch embedding, i > 0 also the first i stages.
        drop_path_rate: Stochastic depth.
        with_cp: Gradient checkpointing, block by block.
        init_cfg: See :class:`TrunkBackbone`.

    Raises:
        UserError: timm has no such Swin; see :func:`mst_pretrain.method.proven.refuse_unproven`.
        InvalidValue: ``out_indices`` are out of range.
    """

    def __init__(
        self,
        model: str = "swin_tiny_patch4_window7_224",
        model_args: dict[str, Any] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        drop_path_rate: float = 0.1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        trunk = create_trunk(
            model,
            [SwinTransformer],
            always_partition=True,
            strict_img_size=False,
            drop_path_rate=drop_path_rate,
            **(model_args or {}),
        )
        self.out_indices = tuple(out_indices)
        if not self.out_indices or not set(self.out_indices) <= set(range(len(trunk.layers))):
            raise InvalidValue(f"out_indices {self.out_indices} do not fit {len(trunk.layers)} stages")
        self.whole = frozenset(trunk.state_dict())
        trunk.norm = nn.Identity()
        trunk.layers = trunk.layers[: max(self.out_indices) + 1]
        for layer in trunk.layers:
            for block in layer.blocks:
                block.__class__ = PadThenShiftBlock
        self.trunk = trunk
        self.patch_size = trunk.patch_embed.patch_size[0]
        self.with_cp, self.frozen_stages = with_cp, frozen_stages
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(trunk.feature_info[index]["num_chs"]))
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] float to [B, C_i, ceil(H / s_i), ceil(W / s_i)] per output."""
        x = self.trunk.patch_embed(pad_to_multiple(images, self.patch_size))
        outputs = []
        for index, layer in enumerate(self.trunk.layers):
            x = layer.downsample(x)
            for block in layer.blocks:
                x = (
                    checkpoint(block, x, use_reentrant=False)
                    if self.with_cp and x.requires_grad
                    else block(x)
                )
            if index in self.out_indices:
                normed = getattr(self, f"norm{index}")(x)
                outputs.append(normed.permute(0, 3, 1, 2).contiguous())
        return tuple(outputs)

    def train(self, mode: bool = True) -> MSTSwin:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        freeze([self.trunk.patch_embed])
        layers = self.trunk.layers
        for index in range(min(self.frozen_stages, len(layers))):
            freeze([layers[index]])
            if index + 1 < len(layers):  # mmdet has the patch merging at the tail of a stage
                freeze([layers[index + 1].downsample])
            if index in self.out_indices:
                freeze([getattr(self, f"norm{index}")])
