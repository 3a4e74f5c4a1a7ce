"""A plain ViT as a backbone of up to four scales, any image size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mst_pretrain.checkpoints.choices import MMSEG
from mst_pretrain.method.proven import VITS, create_trunk
from mst_pretrain.method.vit_tokens import check_rule, embed_tokens, run_block
from mst_pretrain.runtime.errors import InvalidValue

from .base import TrunkBackbone, freeze, pad_to_multiple
from .windows import run_in_windows

PLAIN = "vit_base_patch16_224"  # has the defaults of timm's VisionTransformer
_SCALES = (4.0, 2.0, 1.0, 0.5)  # of the pyramid, cells per patch


@MODELS.register_module()
class MSTVisionTransformer(TrunkBackbone):
    """timm's ViT, DINOv2, DINOv3, SigLIP or distilled DeiT at every image size; tokens of blocks as feature maps.

    With ``pyramid`` four taps become strides p/4, p/2, p and 2p by two deconvolutions, one, none and a max-pool
    [code: iBOT], and fewer taps become the last of these; without it every tap keeps stride p. Images are
    padded to the right and below to whole patches and cells that see only padding are cut off. Learned positions are
    resized to the image's own grid by the rule ``positions``; the rotary positions of a DINOv3 are computed for it.
    Away from the native size the rules differ a little, and each project's published features are those of its own.

    Args:
        model: timm name, or None for timm's ``VisionTransformer(**model_args)``.
        model_args: Arguments that differ from the named model's.
        out_indices: Blocks tapped, counted from 0; later blocks are not built.
        frozen_stages: -1 trains all; 0 freezes the embeddings, i > 0 also the first i blocks.
        drop_path_rate: Stochastic depth.
        with_cp: Gradient checkpointing, block by block.
        pyramid: A scale for each tap. A scale that no head reads is left out of ``out_indices`` from the front: its
            parameters would get no gradient, which stops a training in several processes.
        normed_taps: Which taps pass the trunk's last norm: ``none`` (as iBOT's detection), ``last`` (as mmseg) or
            ``all`` (as DINO's features of several blocks). Default: ``none`` with ``pyramid``, else ``last``.
        window_size: Attention inside windows of so many patches per side [code: ViTDet, 14], for large images; see
            :func:`run_in_windows`. None: every block attends globally.
        global_blocks: Blocks that attend globally all the same, counted from 0. None: the last block of each quarter
            of the model [code: ViTDet]. Only with ``window_size``.
        positions: How learned positions are resized: ``mmseg`` (also transformers' and MAE's), ``timm`` or ``dino``
            (also iBOT's and DINOv2's); see :func:`mst_pretrain.method.vit_tokens.resize_positions`. A checkpoint that
            names its rule must name this one.
        init_cfg: See :class:`TrunkBackbone`.

    Attributes:
        depth: Blocks of the model, those not built included.

    Raises:
        UserError: timm has no such ViT; see :func:`mst_pretrain.method.proven.refuse_unproven`.
        InvalidValue: ``out_indices`` or ``global_blocks`` are out of range, ``out_indices`` are more than four
            with ``pyramid``, or ``window_size`` is not positive.
    """

    def __init__(
        self,
        model: str | None = "vit_small_patch16_224",
        model_args: dict[str, Any] | None = None,
        out_indices: Sequence[int] = (3, 5, 7, 11),
        frozen_stages: int = -1,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        pyramid: bool = True,
        normed_taps: str | None = None,
        window_size: int | None = None,
        global_blocks: Sequence[int] | None = None,
        positions: str = MMSEG,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        options = dict(dynamic_img_size=True, drop_path_rate=drop_path_rate, **(model_args or {}))
        trunk = create_trunk(model or PLAIN, VITS, **options)
        self.out_indices = tuple(out_indices)
        if not self.out_indices or list(self.out_indices) != sorted(set(self.out_indices)):
            raise InvalidValue(f"out_indices must rise, got {self.out_indices}")
        if self.out_indices[-1] >= len(trunk.blocks) or self.out_indices[0] < 0:
            raise InvalidValue(f"out_indices {self.out_indices} do not fit {len(trunk.blocks)} blocks")
        if pyramid and len(self.out_indices) > len(_SCALES):
            raise InvalidValue(f"the pyramid has at most four scales, got out_indices {self.out_indices}")
        self.normed_taps = normed_taps or ("none" if pyramid else "last")
        if self.normed_taps not in ("none", "last", "all"):
            raise InvalidValue(f"normed_taps must be none, last or all, got '{normed_taps}'")
        self.window_size = window_size
        self.windowed_blocks = _windowed_blocks(trunk, window_size, global_blocks)
        self.whole = frozenset(trunk.state_dict())
        self.positions = check_rule(positions)
        if self.normed_taps == "none":
            trunk.norm = nn.Identity()
        trunk.attn_pool, trunk.fc_norm = (
            None,
            nn.Identity(),
        )  # of pooled features: a parameter without gradient would stop DDP
        self.depth = len(trunk.blocks)
        trunk.blocks = trunk.blocks[: self.out_indices[-1] + 1]
        self.trunk = trunk
        self.patch_size = trunk.patch_embed.patch_size[0]
        self.with_cp, self.frozen_stages = with_cp, frozen_stages
        self.pyramid = _pyramid(trunk.embed_dim)[-len(self.out_indices) :] if pyramid else None
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] float to one [B, D, ceil(H / s), ceil(W / s)] map per tap, s its stride."""
        trunk = self.trunk
        tokens = trunk.patch_embed(pad_to_multiple(images, self.patch_size))
        height, width = tokens.shape[1:3]
        x, rope = embed_tokens(trunk, tokens, self.positions)
        taps = []
        for index, block in enumerate(trunk.blocks):
            run: Callable[..., Tensor] = partial(run_block, block)
            if self.window_size is not None and index in self.windowed_blocks:
                run = partial(run_in_windows, block, height=height, width=width, window=self.window_size)
            if self.with_cp and x.requires_grad:
                x = checkpoint(run, x, rope=rope, use_reentrant=False)
            else:
                x = run(x, rope=rope)
            if index in self.out_indices:
                normed = self.normed_taps == "all" or index == self.out_indices[-1]
                y = trunk.norm(x) if normed else x
                patches = y[:, trunk.num_prefix_tokens :].transpose(1, 2).unflatten(2, (height, width))
                taps.append(patches.contiguous())
        if self.pyramid is None:
            return tuple(taps)
        outputs = []
        for step, tap, scale in zip(self.pyramid, taps, _SCALES[-len(taps) :], strict=True):
            rows, columns = (math.ceil(side * scale / self.patch_size) for side in images.shape[-2:])
            outputs.append(step(tap)[:, :, :rows, :columns].contiguous())
        return tuple(outputs)

    def train(self, mode: bool = True) -> MSTVisionTransformer:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        trunk = self.trunk
        freeze([trunk.patch_embed, trunk.pos_drop, trunk.norm_pre, *trunk.blocks[: self.frozen_stages]])
        for name in ("cls_token", "dist_token", "pos_embed", "reg_token"):
            parameter = getattr(trunk, name, None)
            if isinstance(parameter, nn.Parameter):
                parameter.requires_grad_(False)
        if self.frozen_stages >= len(trunk.blocks):
            freeze([trunk.norm])


def _windowed_blocks(
    trunk: Any, window_size: int | None, global_blocks: Sequence[int] | None
) -> frozenset[int]:
    """Indices of the blocks whose attention stays inside windows."""
    depth = len(trunk.blocks)
    if window_size is None:
        if global_blocks is not None:
            raise InvalidValue("global_blocks need a window_size: without one every block is global")
        return frozenset()
    if window_size < 1:
        raise InvalidValue(f"window_size must be positive or None, got {window_size}")
    if global_blocks is None:
        global_blocks = [math.ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)]
    windowed = frozenset(range(depth)) - set(global_blocks)
    if not set(global_blocks) <= set(range(depth)):
        raise InvalidValue(f"global_blocks {tuple(global_blocks)} do not fit {depth} blocks")
    return windowed


def _pyramid(dim: int) -> nn.ModuleList:
    """Two deconvolutions, one, identity, max-pool [code: iBOT]."""
    return nn.ModuleList(
        [
            nn.Sequential(
                nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
                nn.BatchNorm2d(dim),
                nn.GELU(),
                nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
            ),
            nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
            nn.Identity(),
            nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True),
        ]
    )
