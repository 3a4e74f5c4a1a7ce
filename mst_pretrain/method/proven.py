"""Which of timm's models are proven to give timm's own features here; every other one is refused when it is built.

A look-alike loads with every key matched and computes something else: other rotary positions, another order of the
norms, cosines for attention. So what is allowed is a list, and tests/*/test_proven_models.py have the proof of every
entry; tests/qa/parity_table.py prints it for the published sizes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import timm
from timm.layers import PatchEmbed, RotaryEmbeddingDinoV3
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    WindowAttention,
)
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn

from ..runtime.errors import InvalidValue, UserError

Trunk: TypeAlias = Any  # one of FAMILIES, whose attributes timm does not type
FAMILIES: dict[type, str] = {
    VisionTransformer: "a plain ViT (timm's VisionTransformer, e.g. vit_small_patch16_224; DINOv2's, e.g. "
    "vit_small_patch14_reg4_dinov2; SigLIP's as a backbone)",
    VisionTransformerDistilled: "a distilled DeiT (e.g. deit_small_distilled_patch16_224)",
    Eva: "a DINOv3 (e.g. vit_small_patch16_dinov3)",
    SwinTransformer: "a Swin (timm's SwinTransformer, e.g. swin_tiny_patch4_window7_224)",
}
VITS = (VisionTransformer, VisionTransformerDistilled, Eva)
# arguments by which our callers ask for any image size, and which other classes of timm do not know
OF_ONE_FAMILY = ("dynamic_img_size", "strict_img_size", "always_partition")
# Exact classes, and of each the parts and parameters that it may have beside nn.Identity.
PARTS: dict[type, set[str]] = {
    VisionTransformer: {
        *("patch_embed", "cls_token", "reg_token", "pos_embed", "pos_drop", "norm_pre"),
        *("blocks", "norm", "attn_pool", "fc_norm", "head_drop", "head"),
    },
    VisionTransformerDistilled: {
        *("patch_embed", "cls_token", "dist_token", "pos_embed", "pos_drop", "norm_pre"),
        *("blocks", "norm", "fc_norm", "head_drop", "head", "head_dist"),
    },
    Eva: {
        *("patch_embed", "cls_token", "reg_token", "pos_drop", "rope"),
        *("blocks", "norm", "fc_norm", "head_drop", "head"),
    },
    RotaryEmbeddingDinoV3: set(),
    EvaBlock: {"norm1", "attn", "gamma_1", "drop_path1", "norm2", "mlp", "gamma_2", "drop_path2"},
    EvaAttention: {"qkv", "q_bias", "v_bias", "attn_drop", "proj", "proj_drop"},
    PatchEmbed: {"proj", "norm"},
    Block: {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"},
    Attention: {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop"},
    SwinTransformer: {"patch_embed", "layers", "norm", "head"},
    SwinTransformerStage: {"downsample", "blocks"},
    PatchMerging: {"norm", "reduction"},
    SwinTransformerBlock: {"norm1", "attn", "drop_path1", "norm2", "mlp", "drop_path2"},
    WindowAttention: {"relative_position_bias_table", "qkv", "attn_drop", "proj", "proj_drop", "softmax"},
}


def create_trunk(name: str, families: Iterable[type] = tuple(FAMILIES), **arguments: Any) -> Trunk:
    """timm's model of that name without classifier, where its features here are proven to be timm's.

    Args:
        name: timm model name.
        families: timm's classes of which it may be.
        arguments: Of the timm model.

    Returns:
        The model. Its ``architecture`` is what a checkpoint says of it in ``meta``: ``architecture``, timm's name, and
        ``model_args``, the JSON text of what differs from the named model's.

    Raises:
        UserError: timm does not know ``name``, it is of no such class, or :func:`refuse_unproven`.
        InvalidValue: timm refuses an argument.
    """
    wanted = " or ".join(FAMILIES[family] for family in families)
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise UserError(f"timm has no model '{name}'. Give one it has ({close}): {wanted}.")
    try:
        model: Trunk = timm.create_model(name, num_classes=0, **arguments)
    except (ValueError, AssertionError) as error:
        if type(error) not in (ValueError, AssertionError) or not str(error):
            raise  # a subclass is about a file or a download, not about an argument
        raise InvalidValue(f"{name}: {error}") from error
    except TypeError as error:
        if not any(f"'{option}'" in str(error) for option in OF_ONE_FAMILY):
            raise
        raise UserError(f"'{name}' is not {wanted}. Choose one.") from error
    if type(model) not in families:
        raise UserError(f"'{name}' is timm's {type(model).__name__}, not {wanted}. Choose one.")
    refuse_unproven(model, name)
    of_weights = {
        key: value for key, value in arguments.items() if key not in (*OF_ONE_FAMILY, "drop_path_rate")
    }
    model.architecture = {"architecture": name, "model_args": json.dumps(of_weights, default=str)}
    return model


def refuse_unproven(model: nn.Module, name: str) -> None:
    """Refuse a timm model that the tests do not prove to give timm's features here, and as a Swin the original's.

    Args:
        model: As timm built it; the device ``meta`` will do.
        name: For the message.

    Raises:
        UserError: Its class, or that of a part of it, is not in :data:`PARTS`, it has a part that is not there,
            its patches are not square, or it is a Swin whose stages do not shift as the original's.
    """
    if isinstance(model, Eva) and model.rope is None:
        raise UserError(
            f"'{name}' has no rotary positions, with which alone it is a DINOv3. Leave that argument out."
        )
    for part in _structure(model):
        kind = type(part)
        names = {key for key, child in part.named_children() if not isinstance(child, nn.Identity)}
        names |= {key for key, _ in part.named_parameters(recurse=False)}
        extra = names - PARTS.get(kind, names)
        if kind not in PARTS or extra:
            what = f"{min(extra)} in its {kind.__name__}" if extra else f"timm's {kind.__name__}"
            raise UserError(
                f"'{name}' has {what}, with which its features were not proven to be timm's. Take a model without "
                f"it: {' or '.join(FAMILIES.values())}."
            )
        if kind is PatchEmbed and part.patch_size[0] != part.patch_size[1]:
            raise UserError(f"'{name}' has patches of {part.patch_size}. Give a patch_size of one number.")
    if isinstance(model, SwinTransformer):
        _refuse_uneven_stages(model, name)


def _structure(model: Any) -> Iterator[Any]:
    """The model and the parts of it whose kind decides about features, each before its own parts."""
    yield model
    yield model.patch_embed
    if type(model) is Eva:
        yield model.rope
    whole: Any = model
    stages: list[Any] = list(whole.layers) if type(model) is SwinTransformer else [model]
    for stage in stages:
        if stage is not model:
            yield stage
            if not isinstance(stage.downsample, nn.Identity):
                yield stage.downsample
        for block in stage.blocks:
            yield block
            yield block.attn


def _refuse_uneven_stages(model: Any, name: str) -> None:
    """Refuse a Swin built for a size at which timm's rule is not the original's.

    Where a side of a stage's map is no longer than the window, the original makes the window as small as that side
    and does not shift at all [code: Swin]; timm decides for each side alone.

    Raises:
        UserError: A stage shifts along one side only, or its window is not square.
    """
    for number, stage in enumerate(model.layers, 1):
        for block in stage.blocks:
            window, shift = block.window_size, block.shift_size
            if window[0] != window[1] or (shift[0] == 0) != (shift[1] == 0):
                height, width = block.input_resolution
                raise UserError(
                    f"'{name}' built for {model.patch_embed.img_size} pixels: stage {number} is a map of {height} x "
                    f"{width} tokens, where timm takes windows of {window} shifted by {shift} and the original Swin "
                    "one rule for both sides, so that the same weights give other features. Leave img_size "
                    "(--img-size) out, or give a square, and one number as window_size: with strict_img_size=False, "
                    "as our tools build it, a Swin takes images of every size."
                )
