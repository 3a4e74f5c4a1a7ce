"""DINOv2, DINOv3 and the distilled DeiT: how they differ from a plain ViT in names, layout, and in timm's model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import Mlp
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

Tensors = dict[str, Tensor]
VIT, SWIN, DINOV2, DINOV3, DISTILLED = "ViT", "Swin", "DINOv2", "DINOv3", "distilled DeiT"
SIZES = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large"}  # (width, depth)
EXTRAS = (  # timm's names of what a plain ViT does not have
    *("reg_token", "dist_token", "blocks.{i}.ls1.gamma", "blocks.{i}.ls2.gamma"),
    *("blocks.{i}.gamma_1", "blocks.{i}.gamma_2", "blocks.{i}.attn.q_bias", "blocks.{i}.attn.v_bias"),
)
# timm, DINOv2's own beside timm's names, transformers
DINOV2_EXTRAS = (
    ("reg_token", "register_tokens", "embeddings.register_tokens"),
    ("blocks.{i}.ls1.gamma", "blocks.{i}.ls1.gamma", "encoder.layer.{i}.layer_scale1.lambda1"),
    ("blocks.{i}.ls2.gamma", "blocks.{i}.ls2.gamma", "encoder.layer.{i}.layer_scale2.lambda1"),
)
_QKV_BIAS, _BIAS_MASK = "blocks.{i}.attn.qkv.bias", "blocks.{i}.attn.qkv.bias_mask"
# timm, DINOv3's own, transformers; None where the dialect has no such entry
DINOV3_ROWS: tuple[tuple[str, str | None, str | None], ...] = (
    ("cls_token", "cls_token", "embeddings.cls_token"),
    ("reg_token", "storage_tokens", "embeddings.register_tokens"),
    ("patch_embed.proj.{p}", "patch_embed.proj.{p}", "embeddings.patch_embeddings.{p}"),
    ("blocks.{i}.norm1.{p}", "blocks.{i}.norm1.{p}", "layer.{i}.norm1.{p}"),
    ("blocks.{i}.attn.qkv.weight", "blocks.{i}.attn.qkv.weight", "layer.{i}.attention.{qkv_proj}.weight"),
    (_QKV_BIAS, _QKV_BIAS, None),
    (_BIAS_MASK, _BIAS_MASK, None),
    ("blocks.{i}.attn.q_bias", None, "layer.{i}.attention.q_proj.bias"),
    ("blocks.{i}.attn.v_bias", None, "layer.{i}.attention.v_proj.bias"),
    ("blocks.{i}.attn.proj.{p}", "blocks.{i}.attn.proj.{p}", "layer.{i}.attention.o_proj.{p}"),
    ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma", "layer.{i}.layer_scale1.lambda1"),
    ("blocks.{i}.norm2.{p}", "blocks.{i}.norm2.{p}", "layer.{i}.norm2.{p}"),
    ("blocks.{i}.mlp.fc1.{p}", "blocks.{i}.mlp.fc1.{p}", "layer.{i}.mlp.up_proj.{p}"),
    ("blocks.{i}.mlp.fc2.{p}", "blocks.{i}.mlp.fc2.{p}", "layer.{i}.mlp.down_proj.{p}"),
    ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma", "layer.{i}.layer_scale2.lambda1"),
    ("norm.{p}", "norm.{p}", "norm.{p}"),
)
ROPE_BASE = 100.0  # [code: DINOv3]
HEAD = 64  # channels of a head of every published DINOv3 [code: DINOv3]


def is_extra(name: str) -> bool:
    """Whether timm's name is of a weight that a plain ViT does not have."""
    return any(re.fullmatch(re.escape(extra).replace(r"\{i\}", r"\d+"), name) for extra in EXTRAS)


def fold_class_position(state: Tensors) -> Tensors:
    """With registers, timm has the position of [CLS] inside its token, and none for the registers [code: timm]."""
    if "reg_token" not in state or "cls_token" not in state or "pos_embed" not in state:
        return state
    positions = state["pos_embed"]
    token = state["cls_token"] + positions[:, :1].to(state["cls_token"].dtype)
    return {**state, "cls_token": token, "pos_embed": positions[:, 1:]}


def unfold_class_position(state: Tensors) -> Tensors:
    """The inverse of :func:`fold_class_position`, the position of [CLS] zero."""
    if "reg_token" not in state:
        return state
    positions = state["pos_embed"]
    return {**state, "pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], 1)}


def split_biases(state: Tensors) -> Tensors:
    """DINOv3's ``qkv.bias`` with its mask to timm's biases of query and value; none where all are zero.

    Raises:
        ValueError: Keys have a bias, which timm's DINOv3 has not.
    """
    rest = {key: value for key, value in state.items() if not key.endswith(("qkv.bias", "qkv.bias_mask"))}
    biases: Tensors = {}
    for key, bias in state.items():
        if key.endswith("qkv.bias"):
            mask = state.get(f"{key}_mask")
            query, of_keys, value = (bias if mask is None else bias * mask.to(bias.dtype)).chunk(3)
            if bool((of_keys != 0).any()):
                raise ValueError(f"{key} has values for the keys, where a DINOv3 has none")
            biases |= {key.replace("qkv.bias", "q_bias"): query, key.replace("qkv.bias", "v_bias"): value}
    return rest | (biases if any(bool(bias.any()) for bias in biases.values()) else {})


def drop_zero_biases(state: Tensors) -> Tensors:
    """transformers' DINOv3 always has biases of query and value; timm's model without them, where all are zero."""
    names = [key for key in state if key.endswith(("attn.q_bias", "attn.v_bias"))]
    if any(bool(state[name].any()) for name in names):
        return state
    return {key: value for key, value in state.items() if key not in names}


def add_zero_biases(state: Tensors) -> Tensors:
    """The inverse of :func:`drop_zero_biases`."""
    added = dict(state)
    for key, weight in state.items():
        if key.endswith("attn.qkv.weight"):
            for part in ("q_bias", "v_bias"):
                added.setdefault(key.replace("qkv.weight", part), weight.new_zeros(weight.shape[1]))
    return added


def join_biases(state: Tensors) -> Tensors:
    """The inverse of :func:`split_biases`: one bias and its mask in each block."""
    full = add_zero_biases(state)
    joined = {key: value for key, value in full.items() if not key.endswith(("attn.q_bias", "attn.v_bias"))}
    for key, query in full.items():
        if key.endswith("attn.q_bias"):
            zeros, ones = torch.zeros_like(query), torch.ones_like(query)
            bias = torch.cat([query, zeros, full[key.replace("q_bias", "v_bias")]])
            name = key.replace("q_bias", "qkv.bias")
            joined |= {name: bias, f"{name}_mask": torch.cat([ones, zeros, ones])}
    return joined


def add_mask_token(name: str, dimensions: int) -> Any:
    """A function that adds the zero mask token, which the projects' own loaders want and no feature reads."""

    def added(state: Tensors) -> Tensors:
        width = next(value.shape[-1] for key, value in state.items() if key.endswith("cls_token"))
        return {**state, name: torch.zeros((1,) * (dimensions - 1) + (width,))}

    return added


def add_periods(state: Tensors) -> Tensors:
    """DINOv3's mask token and the periods of its rotation, which its own loader wants."""
    exponents = 2.0 * torch.arange(HEAD // 4, dtype=torch.float32) / (HEAD // 2)
    return {**add_mask_token("mask_token", 2)(state), "rope_embed.periods": ROPE_BASE**exponents}


def kind_of_model(model: Any) -> str:
    """Which family timm's model is of."""
    if isinstance(model, SwinTransformer):
        return SWIN
    if isinstance(model, VisionTransformerDistilled):
        return DISTILLED
    block = model.blocks[0]
    if type(block.mlp) is not Mlp:
        return VIT  # with a part that no other project's format has
    if isinstance(model, Eva):
        return DINOV3
    folded = (model.reg_token is not None) == bool(model.no_embed_class)
    return DINOV2 if hasattr(block.ls1, "gamma") and folded and model.cls_token is not None else VIT


def kind_of_weights(shapes: Mapping[str, Any]) -> str | None:
    """The family that timm's names of weights tell; None where they are no ViT's or Swin's."""
    if any(name.startswith("layers.") for name in shapes):
        return SWIN
    if not any(name.startswith("blocks.") for name in shapes):
        return None
    if "dist_token" in shapes:
        return DISTILLED
    scaled = any(re.fullmatch(r"blocks\.\d+\.gamma_1", name) for name in shapes)
    if scaled and "reg_token" in shapes and "pos_embed" not in shapes:  # a BEIT has neither of these two
        return DINOV3
    return DINOV2 if any(re.fullmatch(r"blocks\.\d+\.ls1\.gamma", name) for name in shapes) else VIT


def by_shape(weights: Mapping[str, Tensor], heads: int | None) -> tuple[str, dict[str, Any]] | None:
    """timm's name and arguments of a DINOv2, DINOv3 or distilled DeiT, or None where shapes do not tell.

    Args:
        weights: By timm's names.
        heads: Of attention, where the file or its format says.
    """
    kind, patch = kind_of_weights(weights), weights.get("patch_embed.proj.weight")
    fc1 = weights.get("blocks.0.mlp.fc1.weight")
    if kind not in (DINOV2, DINOV3, DISTILLED) or patch is None or patch.ndim != 4 or fc1 is None:
        return None
    width, pixels = patch.shape[0], patch.shape[2]
    depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    if f"blocks.{depth - 1}.norm1.weight" not in weights or (heads is not None and not 0 < heads <= width):
        return None  # a block is missing, or the heads make no sense
    if heads is not None and width % heads:
        return None
    fc2 = weights.get("blocks.0.mlp.fc2.weight")
    if fc2 is None or tuple(fc2.shape) != tuple(fc1.shape)[::-1]:
        return None  # SwiGLU
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    size = SIZES.get((width, depth)) if heads in (None, width // 64) else None
    arguments: dict[str, Any] = {}
    if size is None or (kind == DINOV2 and size == "tiny") or (kind == DISTILLED and size == "large"):
        if heads is None:
            return None
        arguments = dict(embed_dim=width, depth=depth, num_heads=heads)
        size = "small"
    if fc1.shape[0] != 4 * width:
        arguments["mlp_ratio"] = fc1.shape[0] / width
    if kind == DINOV3:
        biased = "_qkvb" if "blocks.0.attn.q_bias" in weights else ""
        size = "small" if size == "tiny" and not biased else size
        if size == "small" and (width, depth) == (192, 12):
            arguments |= dict(embed_dim=192, num_heads=heads or 3)
        arguments |= {} if registers == 4 else {"num_reg_tokens": registers}
        return f"vit_{size}_patch16_dinov3{biased}", arguments | (
            {} if pixels == 16 else {"patch_size": pixels}
        )
    positions = weights["pos_embed"].shape[1] if "pos_embed" in weights else 0
    before = 2 if kind == DISTILLED else 0 if registers else 1
    side = math.isqrt(max(positions - before, 0))
    if side == 0 or side * side != positions - before:
        return None
    name, native, usual = (f"deit_{size}_distilled_patch16_224", 224, 16)
    if kind == DINOV2:
        name, native, usual = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2", 518, 14
        arguments |= {} if registers in (0, 4) else {"reg_tokens": registers}
    arguments |= {} if pixels == usual else {"patch_size": pixels}
    return name, arguments | ({} if side * pixels == native else {"img_size": side * pixels})


def summary(shapes: Mapping[str, Any]) -> str | None:
    """What a ViT's or Swin's weights tell of it, for messages: family, width, depth, patch, registers or window.

    Args:
        shapes: Tensors or shapes by timm's names.
    """
    sizes = {name: tuple(getattr(value, "shape", value)) for name, value in shapes.items()}
    kind, patch = kind_of_weights(sizes), sizes.get("patch_embed.proj.weight")
    if kind is None or patch is None or len(patch) != 4:
        return None
    text = f"{kind} of width {patch[0]}, patch {patch[2]}"
    if kind == SWIN:
        blocks: dict[int, int] = {}
        for name in sizes:
            if found := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
                blocks[int(found[1])] = max(blocks.get(int(found[1]), 0), int(found[2]) + 1)
        table = sizes.get("layers.0.blocks.0.attn.relative_position_bias_table", (0,))
        depths = ", ".join(str(blocks[stage]) for stage in sorted(blocks))
        return f"{text}, depths {depths}, window {(math.isqrt(table[0]) + 1) // 2}"
    depth = len({name.split(".")[1] for name in sizes if name.startswith("blocks.")})
    registers = sizes["reg_token"][1] if "reg_token" in sizes else 0
    text = f"{text}, depth {depth}"
    return text + (f", {registers} registers" if registers or kind in (DINOV2, DINOV3) else "")
