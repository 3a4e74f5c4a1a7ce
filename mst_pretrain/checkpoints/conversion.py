"""From one project's checkpoint to another's: every weight of the backbone, or a refusal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import get_relative_position_index
from torch import Tensor

from ..runtime.atomic import file_sha256
from ..runtime.environment import environment_info
from ..runtime.errors import UserError
from . import huggingface_folder
from .architecture import window_side
from .backbone import Backbone, read_backbone
from .formats import TARGETS, Target
from .reading import epoch_of, iteration_of
from .storage import owned, save_atomic, save_safetensors
from .timm_keys import ORIGINAL_SWIN, Dialect, Tensors
from .vit_families import VIT

# Arguments of a timm model that every format can express.
EXPRESSIBLE = {
    *("img_size", "patch_size", "embed_dim", "depth", "depths", "num_heads", "mlp_ratio", "window_size"),
    *("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate", "global_pool"),
    *("dynamic_img_size", "strict_img_size", "reg_tokens", "num_reg_tokens"),
}


def write_backbone(backbone: Backbone, destination: str | Path, to: str = "timm") -> list[Path]:
    """Write a backbone for somebody, whole or not at all.

    Args:
        backbone: From :func:`read_backbone`.
        destination: File, or folder of the Hugging Face format.
        to: Name in :data:`TARGETS`.

    Returns:
        The files written.

    Raises:
        UserError: The format does not exist, has no such architecture or weight, or wants another name.
    """
    destination, target = Path(destination), find_target(to)
    check_destination(destination, target)
    kind = backbone.architecture.kind
    if kind not in target.layout:
        raise UserError(f"{backbone.file.path} is a {kind}. --to {to}: {target.remedy}.")
    dialect, prefix = target.layout[kind]
    _refuse_inexpressible(backbone, dialect)
    state = dialect.from_timm(backbone.state)
    metadata = describe(backbone)
    if target.name == "huggingface":
        eps = expressible_eps(backbone)
        return huggingface_folder.write_folder(state, backbone.architecture, eps, metadata, destination)
    if target.name == "detectron2" and dialect is ORIGINAL_SWIN:
        state |= position_indices(state)  # detectron2 keeps them and warns where they are missing
    named = {f"{prefix}{key}": value for key, value in owned(state).items()}
    if destination.suffix == ".safetensors":
        save_safetensors(named, destination, metadata)
    else:
        content = {target.container: named, "meta": metadata} if target.container else named
        save_atomic(content, destination)
    return [destination]


def _refuse_inexpressible(backbone: Backbone, dialect: Dialect) -> None:
    """Refuse an argument that no weight says, a weight that no plain network has, a ViT whose [CLS] has no position."""
    architecture, path = backbone.architecture, backbone.file.path
    inexpressible = set(architecture.arguments) - EXPRESSIBLE
    if inexpressible:
        raise UserError(
            f"{path}: '{min(inexpressible)}' of the model is in no weight and cannot be written for others."
        )
    positions = 1 + architecture.grid[0] * architecture.grid[1]
    plain = architecture.kind == VIT
    if plain and architecture.shapes().get("pos_embed", (1, 0))[1] != positions:
        raise UserError(
            f"{path}: {architecture.name} has no position of its [CLS] token, which every other format expects. It "
            "cannot be converted; give --model the one the file was trained with, if that was another."
        )
    known = {rule.patterns[0] for rule in dialect.rules}
    prepared = dialect.prepared(backbone.state)
    if other := [name for name in prepared if not any(rule.fullmatch(name) for rule in known)]:
        raise UserError(
            f"{path}: {architecture.name} has {len(other)} weights that no other format has a place for (first: "
            f"{other[0]}). It cannot be converted; evaluations and configs with timm's name of it read it as it is."
        )


def expressible_eps(backbone: Backbone) -> float:
    """The norms' epsilon in a Hugging Face model: any in a ViT; its Swin's embedding and mergings have timm's."""
    return backbone.architecture.norm_eps if backbone.architecture.is_swin else backbone.norm_eps


def find_target(to: str) -> Target:
    """The target of that name, or a refusal."""
    if to not in TARGETS:
        raise UserError(f"'{to}' is not a format that can be written. Give one of: {', '.join(TARGETS)}.")
    return TARGETS[to]


def check_destination(destination: Path, target: Target) -> None:
    """Refuse a name that the library does not read."""
    if target.name == "huggingface":
        huggingface_folder.check_folder(destination)
    elif destination.suffix not in target.suffixes or destination.is_dir():
        raise UserError(
            f"{destination}: a file for {target.name} ends in {' or '.join(target.suffixes)}. Give such a name."
        )


def position_indices(state: Mapping[str, Tensor]) -> Tensors:
    """The ``relative_position_index`` [N, N] int64 beside every bias table, N = window squared [code: Swin]."""
    indices: Tensors = {}
    for name, table in state.items():
        if name.endswith("relative_position_bias_table"):
            window = window_side(table)
            indices[name.replace("bias_table", "index")] = get_relative_position_index(window, window)
    return indices


def describe(backbone: Backbone) -> dict[str, str]:
    """What a file says of itself: method, architecture, network, epoch, data, configuration, origin."""
    meta, reading = backbone.file.meta, backbone.reading
    text, versions = meta.get("cfg"), environment_info(torch.device("cpu"))["versions"]
    known = {
        "format": "pt",
        "method": meta.get("method") or method_of(backbone) or reading.format,
        "architecture": backbone.architecture.name,
        "model_args": json.dumps(backbone.architecture.arguments),
        "norm_eps": f"{backbone.norm_eps:g}",
        "positions": backbone.positions,
        "network": reading.role or meta.get("network"),
        "epoch": epoch_of(backbone.file),
        "iteration": iteration_of(backbone.file),
        "data": meta.get("data"),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest() if text else meta.get("config_sha256"),
        "source": backbone.file.path.name,
        "source_sha256": file_sha256(backbone.file.path),
        "resized": "; ".join(backbone.resized),
        "missing": "; ".join(backbone.missing),
        "toolkit": f"mst-toolkit {versions['mst-toolkit']}",
        "timm": versions["timm"],
    }
    return {key: str(value) for key, value in known.items() if value not in (None, "")}


def method_of(backbone: Backbone) -> str | None:
    """MST, or DINO where a pretraining of ours has neither a mask token nor a decoder; None for other files.

    DINO itself starts its [CLS] token with a standard deviation of 0.02, timm's ViT with 1e-6.
    """
    if backbone.reading.format != "mst" or backbone.reading.role is None:
        return None
    of_mst = any(key == "mask_token" or key.startswith("decoder.") for key in backbone.file.tensors)
    return "MST" if of_mst else "DINO"


def convert_checkpoint(
    source: str | Path, destination: str | Path, to: str = "timm", **reading: Any
) -> Backbone:
    """Read anybody's checkpoint and write it for somebody else.

    Args:
        source: File, or Hugging Face folder.
        destination: File, or folder of the Hugging Face format.
        to: ``timm`` (which our own configs read), ``mmdet``, ``mmseg``, ``detectron2`` or ``huggingface``.
        reading: As :func:`read_backbone` takes it.

    Returns:
        What was read and how; ``print`` shows the report.

    Raises:
        UserError: See :func:`read_backbone` and :func:`write_backbone`; nothing is written then.
    """
    check_destination(Path(destination), find_target(to))
    if Path(destination).resolve() == Path(source).resolve():
        raise UserError(
            f"{destination} is the source itself, of which only the backbone would be left. Name another."
        )
    backbone = read_backbone(source, **reading)
    write_backbone(backbone, destination, to)
    return backbone
