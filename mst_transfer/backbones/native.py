"""Converted files in mmdet's and mmseg's own backbones, beside ours with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmdet.models
import mmseg.models
import torch
from mmengine.config import ConfigDict

from mst_pretrain.checkpoints.architecture import Architecture
from mst_pretrain.checkpoints.backbone import Backbone
from mst_pretrain.checkpoints.storage import use_safe_loading
from mst_pretrain.checkpoints.verify import deviation, image_for

from . import MSTSwin, MSTVisionTransformer


def native_backbone(architecture: Architecture, library: str, checkpoint: str | Path) -> Any:
    """mmdet's or mmseg's own backbone, started from a file by its own ``init_weights``, in evaluation mode.

    Args:
        architecture: A Swin, or with ``mmseg`` a ViT.
        library: ``mmdet`` or ``mmseg``.
        checkpoint: Written with ``--to`` of that name.
    """
    model, init = architecture.model, ConfigDict(type="Pretrained", checkpoint=str(checkpoint))
    if architecture.is_swin:
        kind = (mmdet if library == "mmdet" else mmseg).models.SwinTransformer
        native = kind(
            embed_dims=model.embed_dim,
            patch_size=architecture.patch_size,
            depths=[len(layer.blocks) for layer in model.layers],
            num_heads=[layer.blocks[0].attn.num_heads for layer in model.layers],
            window_size=architecture.window,
            out_indices=tuple(range(len(model.layers))),
            drop_path_rate=0.0,
            init_cfg=init,
        )
    else:
        native = mmseg.models.VisionTransformer(
            img_size=architecture.image_size,
            patch_size=architecture.patch_size,
            embed_dims=model.embed_dim,
            num_layers=len(model.blocks),
            num_heads=model.blocks[0].attn.num_heads,
            mlp_ratio=model.blocks[0].mlp.fc1.out_features // model.embed_dim,
            out_indices=(len(model.blocks) - 1,),
            qkv_bias=True,
            patch_bias=True,  # not the default
            final_norm=True,
            norm_cfg=dict(type="LN", eps=model.norm.eps),
            init_cfg=init,
        )
    use_safe_loading()
    native.init_weights()
    native.eval()  # mmdet's returns None
    return native


def own_backbone(backbone: Backbone) -> Any:
    """MSTSwin, or MSTVisionTransformer with its last norm, of the weights read, in evaluation mode."""
    architecture = backbone.architecture
    own: Any
    if architecture.is_swin:
        stages = range(len(architecture.model.layers))
        own = MSTSwin(architecture.name, architecture.arguments, out_indices=tuple(stages))
    else:
        last = len(architecture.model.blocks) - 1
        own = MSTVisionTransformer(
            architecture.name, architecture.arguments, out_indices=(last,), pyramid=False
        )
    weights = {key: value for key, value in backbone.state.items() if key in own.trunk.state_dict()}
    own.trunk.load_state_dict(weights)
    return own.eval()


@torch.no_grad()
def native_deviation(
    backbone: Backbone, path: Path, library: str, size: tuple[int, int] | None = None
) -> float:
    """Largest over the outputs; both Swins shift at every size, each output passes a norm of initial values.

    Args:
        backbone: What was read.
        path: What was written for ``library``.
        library: ``mmdet`` or ``mmseg``.
        size: (height, width) of the image in pixels; None for the one that the model was built for.
    """
    images = image_for(backbone, size)
    pairs = zip(
        native_backbone(backbone.architecture, library, path)(images),
        own_backbone(backbone)(images),
        strict=True,
    )
    return max(deviation(found, expected) for found, expected in pairs)
