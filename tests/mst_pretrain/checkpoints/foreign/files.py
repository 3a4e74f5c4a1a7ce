"""Checkpoints of seven foreign projects, drawn at random, and what those projects compute from them.

Written from reading the projects' published source (docs/checkpoint_sources.md says which file says what). Needs
nothing but torch and knows nothing of the code that it tests. Heads, decoders and queues are smaller than the authors'.

``which`` names a role of ROLES. A state dict that holds two roles (MoBY's) is the same for both of them; only
:func:`prefix` tells them apart.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ViT:
    width: int
    depth: int
    heads: int
    image: int = 224
    patch: int = 16


@dataclass(frozen=True)
class Swin:
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    image: int = 224


MODELS: dict[str, ViT | Swin] = {
    "deit-s": ViT(384, 12, 6),
    "swin-t": Swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "vit-tiny-test": ViT(48, 2, 3, image=64),
    "swin-tiny-test": Swin(24, (2, 2, 2, 2), (1, 2, 3, 4)),
}
ARCHITECTURES = tuple(MODELS)
PAIR, MODEL = ("student", "teacher"), ("model",)
ROLES: dict[str, tuple[str, ...]] = {
    "dino": PAIR,
    "dino-backbone": ("teacher",),
    "ibot": PAIR,
    "ibot-teacher": ("teacher",),
    "esvit": PAIR,
    "moby": PAIR,  # student: encoder, the online branch; teacher: encoder_k, the momentum branch
    "mae": MODEL,
    "mae-encoder": MODEL,
    "detectron2": MODEL,
    "swin": MODEL,
}
FORMATS = tuple(ROLES)
# The role that the authors evaluate and transfer. MoBY is the exception: the online encoder.
EVALUATED = {name: "student" if name == "moby" else roles[-1] for name, roles in ROLES.items()}

# Theirs:  65536 (DINO, EsViT) or 8192 (iBOT), 2048,        256,             1000,         512 and 8
PROTOTYPES, HIDDEN, BOTTLENECK, CLASSES, DECODER, DECODER_DEPTH = 64, 32, 16, 10, 32, 1
# Theirs:                       4096,       256,           4096,       256
MOBY_HIDDEN, MOBY_OUT, MOBY_QUEUE, PYRAMID = 32, 16, 64, 16


def exists(format: str, architecture: str) -> bool:
    """Whether the project's code builds this kind of network and saves it so.

    Built by the code, published by nobody as far as read: MAE and ViTDet of DeiT-S size, detectron2's Swin-T,
    both test sizes. EsViT's code also builds DeiTs: none published, left out. DINO's builds no Swin.
    """
    vit = isinstance(MODELS[architecture], ViT)
    if format in ("dino", "dino-backbone", "mae", "mae-encoder"):
        return vit
    return not vit if format in ("esvit", "swin") else format in FORMATS


def check(format: str, architecture: str, which: str) -> ViT | Swin:
    if format not in FORMATS or architecture not in ARCHITECTURES or not exists(format, architecture):
        raise ValueError(f"no checkpoint of format {format!r} and architecture {architecture!r}")
    if which not in ROLES[format]:
        raise ValueError(f"format {format!r} has the roles {ROLES[format]}, not {which!r}")
    return MODELS[architecture]


# ---- keys and shapes ----


def affine(name: str, *shape: int, bias: int | None = None) -> Shapes:
    """A module's weight, and its bias (as long as the weight's first side unless given; none if 0)."""
    size = shape[0] if bias is None else bias
    return {f"{name}.weight": shape} | ({f"{name}.bias": (size,)} if size else {})


def block(name: str, width: int, attention: Shapes) -> Shapes:
    keys = affine(f"{name}.norm1", width) | {f"{name}.attn.{key}": shape for key, shape in attention.items()}
    keys |= affine(f"{name}.attn.qkv", 3 * width, width) | affine(f"{name}.attn.proj", width, width)
    keys |= affine(f"{name}.norm2", width)
    return keys | affine(f"{name}.mlp.fc1", 4 * width, width) | affine(f"{name}.mlp.fc2", width, 4 * width)


def vit_shapes(vit: ViT, detector: bool) -> Shapes:
    """A detector's ViT keeps the class token's position, but has neither class token nor final norm."""
    positions = (vit.image // vit.patch) ** 2 + 1
    keys: Shapes = {} if detector else {"cls_token": (1, 1, vit.width)}
    keys["pos_embed"] = (1, positions, vit.width)
    keys |= affine("patch_embed.proj", vit.width, 3, vit.patch, vit.patch)
    for index in range(vit.depth):
        keys |= block(f"blocks.{index}", vit.width, {})
    return keys if detector else keys | affine("norm", vit.width)


def shift_of(swin: Swin, stage: int, index: int, detector: bool) -> int:
    """Original: none in a stage whose map, at the size that the network was built for, fits one window."""
    fits = swin.image // 4 // 2**stage <= swin.window
    return 0 if index % 2 == 0 or (fits and not detector) else swin.window // 2


def swin_shapes(swin: Swin, detector: bool, masks: bool) -> Shapes:
    area = swin.window**2
    keys = affine("patch_embed.proj", swin.width, 3, 4, 4) | affine("patch_embed.norm", swin.width)
    for stage, (depth, heads) in enumerate(zip(swin.depths, swin.heads, strict=True)):
        width, windows = swin.width * 2**stage, (swin.image // 4 // 2**stage // swin.window) ** 2
        for index in range(depth):
            name = f"layers.{stage}.blocks.{index}"
            if masks and shift_of(swin, stage, index, detector):
                keys[f"{name}.attn_mask"] = (windows, area, area)
            table = ((2 * swin.window - 1) ** 2, heads)
            bias: Shapes = {"relative_position_bias_table": table, "relative_position_index": (area, area)}
            keys |= block(name, width, bias)
        if stage + 1 < len(swin.depths):
            keys |= affine(f"layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=0)
            keys |= affine(f"layers.{stage}.downsample.norm", 4 * width)
        if detector:
            keys |= affine(f"norm{stage}", width)
    return keys if detector else keys | affine("norm", width)


def backbone_shapes(format: str, architecture: str, which: str) -> Shapes:
    """Keys of the network proper, without prefix."""
    model, detector = check(format, architecture, which), format == "detectron2"
    if isinstance(model, ViT):
        keys = vit_shapes(model, detector)
    else:
        keys = swin_shapes(model, detector, masks=format in ("moby", "swin"))
    return keys | ({"masked_embed": (1, model.width)} if (format, which) == ("ibot", "student") else {})


def prefix(format: str, architecture: str, which: str) -> str:
    """What stands before the network's own keys in the authors' state dict."""
    vit = isinstance(check(format, architecture, which), ViT)
    if format in ("dino", "ibot"):  # MultiCropWrapper; the student is saved inside DistributedDataParallel
        return "module.backbone." if which == "student" else "backbone."
    if format == "esvit":  # no MultiCropWrapper
        return "module." if which == "student" else ""
    if format == "moby":
        return "encoder." if which == "student" else "encoder_k."
    if format == "detectron2":
        return "backbone.net." if vit else "backbone.bottom_up."
    return ""


def dino_head(name: str, width: int, layers: tuple[str, ...] = ("last_layer",)) -> Shapes:
    keys = affine(f"{name}.mlp.0", HIDDEN, width) | affine(f"{name}.mlp.2", HIDDEN, HIDDEN)
    keys |= affine(f"{name}.mlp.4", BOTTLENECK, HIDDEN)
    for layer in layers:  # the old weight_norm: two parameters, no bias
        keys[f"{name}.{layer}.weight_g"] = (PROTOTYPES, 1)
        keys[f"{name}.{layer}.weight_v"] = (PROTOTYPES, BOTTLENECK)
    return keys


def moby_shapes(backbone: Shapes, width: int) -> Shapes:
    """One state dict, saved without the prefix of DistributedDataParallel. The target has no predictor."""
    keys = {f"{name}.{key}": shape for name in ("encoder", "encoder_k") for key, shape in backbone.items()}
    for name, size in (("projector", width), ("projector_k", width), ("predictor", MOBY_OUT)):
        bn = f"{name}.linear_hidden.2"
        keys |= affine(f"{name}.linear_hidden.1", MOBY_HIDDEN, size) | affine(bn, MOBY_HIDDEN)
        keys |= {f"{bn}.running_{key}": (MOBY_HIDDEN,) for key in ("mean", "var")}
        keys[f"{bn}.num_batches_tracked"] = ()
        keys |= affine(f"{name}.linear_out", MOBY_OUT, MOBY_HIDDEN)
    return keys | {"queue1": (MOBY_OUT, MOBY_QUEUE), "queue2": (MOBY_OUT, MOBY_QUEUE), "queue_ptr": (1,)}


def detector_shapes(model: ViT | Swin) -> Shapes:
    """Around the backbone: part of Mask R-CNN (two levels of the simple pyramid; no box and mask heads)."""
    keys: Shapes = {}
    for stage in range(4 if isinstance(model, Swin) else 0):
        keys |= affine(f"backbone.fpn_lateral{stage + 2}", PYRAMID, model.width * 2**stage, 1, 1)
        keys |= affine(f"backbone.fpn_output{stage + 2}", PYRAMID, PYRAMID, 3, 3)
    for level, first in ((4, 0), (5, 1)) if isinstance(model, ViT) else ():
        for number, width, kernel in ((first, model.width, 1), (first + 1, PYRAMID, 3)):
            name = f"backbone.simfp_{level}.{number}"
            keys |= affine(name, PYRAMID, width, kernel, kernel, bias=0) | affine(f"{name}.norm", PYRAMID)
    head = "proposal_generator.rpn_head"
    for name, out, kernel in (("conv", PYRAMID, 3), ("objectness_logits", 3, 1), ("anchor_deltas", 12, 1)):
        keys |= affine(f"{head}.{name}", out, PYRAMID, kernel, kernel)
    return keys


def extra_shapes(format: str, model: ViT | Swin, which: str) -> Shapes:
    """What stands beside the network in its state dict."""
    wrapper = "module." if which == "student" else ""
    width = model.width if isinstance(model, ViT) else model.width * 8
    if format == "dino":
        return dino_head(f"{wrapper}head", width)
    if format in ("ibot", "ibot-teacher"):  # a shared head is registered under both names, hence saved twice
        return dino_head(f"{wrapper}head", width, ("last_layer", "last_layer2"))
    if format == "esvit":
        return dino_head(f"{wrapper}head", width) | dino_head(f"{wrapper}head_dense", width)
    if format == "mae" and isinstance(model, ViT):
        positions = (model.image // model.patch) ** 2 + 1
        keys = affine("decoder_embed", DECODER, width) | {"mask_token": (1, 1, DECODER)}
        keys |= {"decoder_pos_embed": (1, positions, DECODER)}
        for index in range(DECODER_DEPTH):
            keys |= block(f"decoder_blocks.{index}", DECODER, {})
        return keys | affine("decoder_norm", DECODER) | affine("decoder_pred", 3 * model.patch**2, DECODER)
    if format == "detectron2":
        return detector_shapes(model)
    return affine("head", CLASSES, width) if format == "swin" else {}


def manifest(format: str, architecture: str, which: str) -> Shapes:
    """Every key and shape of the state dict that holds this role."""
    model, keys = check(format, architecture, which), backbone_shapes(format, architecture, which)
    if format == "moby":
        return moby_shapes(keys, model.width if isinstance(model, ViT) else model.width * 8)
    start = prefix(format, architecture, which)
    return {start + key: shape for key, shape in keys.items()} | extra_shapes(format, model, which)


# ---- values ----


def relative_position_index(window: int) -> Tensor:
    """[window**2, window**2] int64: row of the bias table for each pair of places in a window."""
    row, column = torch.arange(window).repeat_interleave(window), torch.arange(window).repeat(window)
    down, right = row[:, None] - row[None, :], column[:, None] - column[None, :]
    return (down + window - 1) * (2 * window - 1) + right + window - 1


def windows_of(x: Tensor, window: int) -> Tensor:
    """[B, H, W, C] to [B * windows, window**2, C], windows in row order."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def attention_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """[windows, window**2, window**2]: -100 between places that only the shift made neighbours, else 0."""
    row, column = torch.arange(height), torch.arange(width)
    down = (row >= height - window).float() + (row >= height - shift).float()
    right = (column >= width - window).float() + (column >= width - shift).float()
    region = 3 * down[:, None] + right[None, :]
    split = windows_of(region[None, :, :, None], window)[..., 0]
    return torch.where(split[:, :, None] == split[:, None, :], 0.0, -100.0)


def draw(key: str, shape: tuple[int, ...], swin: Swin | ViT, generator: torch.Generator) -> Tensor:
    """Buffers by the authors' formulas; all else normal, no two tensors alike, none degenerate."""
    leaf, noise = key.rsplit(".", 1)[-1], torch.randn(shape, generator=generator)
    if leaf == "relative_position_index" and isinstance(swin, Swin):
        return relative_position_index(swin.window)
    if leaf == "attn_mask" and isinstance(swin, Swin):
        side = math.isqrt(shape[0]) * swin.window
        return attention_mask(side, side, swin.window, swin.window // 2)
    if leaf in ("num_batches_tracked", "queue_ptr"):
        return torch.full(shape, 32, dtype=torch.int64)
    if leaf in ("running_var", "weight_g"):
        return 1 + 0.3 * noise.abs()
    if leaf == "weight" and len(shape) == 1:  # norms
        return 1 + 0.3 * noise
    if leaf in ("weight", "weight_v"):
        return noise / math.sqrt(math.prod(shape[1:]))
    spread = 0.3 if leaf in ("bias", "running_mean") else 1.0  # tables, positions, tokens, queues: 1
    return spread * noise


def draw_state(format: str, architecture: str, which: str, generator: torch.Generator) -> State:
    keys, model = manifest(format, architecture, which), MODELS[architecture]
    state = {key: draw(key, shape, model, generator) for key, shape in keys.items()}
    if format.startswith("ibot") and which == "teacher":  # shared_head_teacher: one layer under two names
        state |= {key: state[key.replace("layer2", "layer")] for key in state if "last_layer2" in key}
    return state


def checkpoint(format: str, architecture: str, seed: int) -> Any:
    """The object that the authors' code saves."""
    generator = torch.Generator().manual_seed(seed)
    model = check(format, architecture, EVALUATED[format])
    group = {"lr": 1e-3, "weight_decay": 0.05, "betas": (0.9, 0.999), "params": [0]}
    optimizer = {"state": {0: {"step": 9, "exp_avg": torch.zeros(3)}}, "param_groups": [group]}
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7}
    if format in ("dino", "ibot", "esvit"):
        vit = isinstance(model, ViT)
        saved: dict[str, Any] = {role: draw_state(format, architecture, role, generator) for role in PAIR}
        saved |= {"optimizer": optimizer, "epoch": 300, "fp16_scaler": scaler}
        arguments = {"arch": "vit_small", "patch_size": 16} if vit else {"arch": "swin_tiny", "patch_size": 4}
        saved["args"] = argparse.Namespace(**arguments, out_dim=PROTOTYPES)
        centers = {"ibot": ("center", "center2"), "esvit": ("center", "center_grid")}.get(format, ("center",))
        loss = {key: torch.randn(1, PROTOTYPES, generator=generator) for key in centers}
        loss |= {"center2": loss["center2"][None]} if format == "ibot" else {}  # [1, 1, K]
        return saved | {"ibot_loss" if format == "ibot" else "dino_loss": loss}
    state = draw_state(format, architecture, ROLES[format][0], generator)
    if format == "dino-backbone":
        return state
    if format == "ibot-teacher":
        return {"state_dict": state}
    rest: dict[str, Any] = {}  # released files (mae-encoder, swin) hold the model alone
    if format == "moby":  # their config is a yacs CfgNode, which weights_only refuses; here a plain dict
        rest = {"optimizer": optimizer, "lr_scheduler": {}, "max_accuracy": 0.0, "epoch": 299, "config": {}}
    if format == "mae":
        args = argparse.Namespace(model="mae_vit_base_patch16", mask_ratio=0.75, norm_pix_loss=True)
        rest = {"optimizer": optimizer, "epoch": 799, "scaler": scaler, "args": args}
    if format == "detectron2":
        rest = {"optimizer": optimizer, "iteration": 89999}
    return {"model": state} | rest


def state_of(format: str, checkpoint: Any, which: str) -> State:
    """The state dict that holds this role, keys as they stand."""
    keys = {"dino-backbone": None, "ibot-teacher": "state_dict", "dino": which, "ibot": which, "esvit": which}
    key = keys.get(format, "model")
    state: State = checkpoint if key is None else checkpoint[key]
    return state


def backbone(format: str, architecture: str, checkpoint: Any, which: str) -> State:
    """The network's own tensors, without prefix, heads, decoder; a student of iBOT keeps its masked_embed."""
    state, start = state_of(format, checkpoint, which), prefix(format, architecture, which)
    return {key: state[start + key] for key in backbone_shapes(format, architecture, which)}
