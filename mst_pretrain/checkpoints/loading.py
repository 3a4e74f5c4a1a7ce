"""Weights into models: every one, or an error that says which are missing."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..runtime.errors import UserError
from .storage import flat_tensors, load_checkpoint

POSITION_EMBEDDING = "pos_embed"
PATCH_EMBEDDING = "patch_embed.proj.weight"
# A classifier and the tables that timm once stored; any other weight left over means another architecture.
MAY_BE_LEFT = re.compile(r"head\.|head_dist\.|fc_norm\.|.*(relative_position_index|attn_mask)$")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its name in the file.

    Raises:
        UserError: The file cannot be read.
    """
    return flat_tensors(load_checkpoint(path))[0]


def backbone_prefix(path: str | Path, tensors: Mapping[str, Tensor] | None = None) -> str:
    """What stands before a backbone's timm keys in a checkpoint; of ours, the teacher's.

    Args:
        path: Checkpoint file.
        tensors: What :func:`read_tensors` found in it; None reads it.

    Raises:
        UserError: The file cannot be read, holds no patch embedding, or several and none is a teacher's.
    """
    keys = list(read_tensors(path) if tensors is None else tensors)
    found = [key.removesuffix(PATCH_EMBEDDING) for key in keys if key.endswith(PATCH_EMBEDDING)]
    chosen = found if len(found) == 1 else [prefix for prefix in found if "teacher" in prefix]
    if len(chosen) != 1:
        heads = ", ".join(sorted({key.split(".")[0] for key in keys})[:8]) or "no tensors"
        what = (
            f"several backbones ({', '.join(found)})" if found else f"no {PATCH_EMBEDDING} (found: {heads})"
        )
        raise UserError(
            f"{path} holds {what}, so it is not clear where its backbone is. Give a checkpoint of tools/pretrain.sh "
            "or a file with timm's keys; others: tools/convert_checkpoint.py."
        )
    return chosen[0]


def load_state_dict(
    path: str | Path, prefix: str = "", tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Tensors of a checkpoint whose keys start with ``prefix``, the prefix removed.

    Args:
        path: Checkpoint file.
        prefix: Part of the keys.
        tensors: What :func:`read_tensors` found in it; None reads it.

    Raises:
        UserError: The file cannot be read, or no key starts with ``prefix``.
    """
    tensors = read_tensors(path) if tensors is None else tensors
    state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    if not state:
        heads = sorted({key.split(".")[0] for key in tensors})[:8]
        raise UserError(
            f"{path} has no weight whose name starts with '{prefix}' (found: {', '.join(heads) or 'no tensors'}). "
            "Give a checkpoint of tools/pretrain.sh, or the prefix under which this file keeps its backbone."
        )
    return state


@dataclass
class LoadReport:
    """What a load did, by key of the receiving module."""

    matched: int = 0
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.missing and not self.mismatched:
            extras = [f"resized: {', '.join(self.resized)}"] if self.resized else []
            extras += [f"not used: {_some(self.unexpected)}"] if self.unexpected else []
            return f"all {self.matched} keys matched" + (f" ({'; '.join(extras)})" if extras else "")
        parts = [f"{self.matched} keys matched"]
        parts += [f"{len(self.missing)} missing ({_some(self.missing)})"] if self.missing else []
        parts += (
            [f"{len(self.mismatched)} of another shape ({_some(self.mismatched)})"] if self.mismatched else []
        )
        parts += [f"{len(self.unexpected)} not used ({_some(self.unexpected)})"] if self.unexpected else []
        return ", ".join(parts)


def load_backbone(
    module: nn.Module,
    path: str | Path,
    prefix: str = "",
    skip: Sequence[str] = (),
    antialias: bool = True,
    tensors: Mapping[str, Tensor] | None = None,
) -> LoadReport:
    """Load every weight of ``module`` from a checkpoint, or fail.

    A position embedding of another grid is resized in float32 to the module's explicit (height, width).

    Args:
        module: Receives the weights; a timm trunk when the checkpoint is ours.
        path: Checkpoint file.
        prefix: Part of the source keys before the module's own names, e.g. ``teacher.backbone.``.
        skip: Patterns (``re.match``) of module keys that need no source, e.g. ``head\\.``.
        antialias: Bicubic resizing as timm's; False as DINO's and mmseg's.
        tensors: What :func:`read_tensors` found in the file; None reads it.

    Raises:
        UserError: A weight has no source, another shape, or values that are not finite or no floating-point
            numbers; the module is then unchanged.
    """
    source = load_state_dict(path, prefix, tensors)
    target = {
        key: value for key, value in module.state_dict().items() if not any(re.match(p, key) for p in skip)
    }
    report = LoadReport(unexpected=sorted(set(source) - set(target)))
    state: dict[str, Tensor] = {}
    for key, value in target.items():
        if key not in source:
            report.missing.append(key)
            continue
        weight = source[key]
        if weight.shape != value.shape and key == POSITION_EMBEDDING and _is_square(module, weight, value):
            weight = _resize_position_embedding(module, weight, antialias)
            report.resized.append(key)
        if weight.shape != value.shape:
            report.mismatched.append(f"{key} {tuple(weight.shape)} for {tuple(value.shape)}")
            continue
        state[key] = weight
    report.matched = len(state)
    if report.missing or report.mismatched:
        raise UserError(
            f"{path} does not fit this backbone: {report}. It is a checkpoint of another architecture or was cut; "
            "use the config that belongs to it, or convert it with tools/convert_checkpoint.py."
        )
    _check_values({key: weight for key, weight in state.items() if target[key].is_floating_point()}, path)
    module.load_state_dict(state, strict=False)
    return report


def _check_values(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Every weight is of floating-point numbers, all of them finite.

    Raises:
        UserError: One is not.
    """
    whole = [f"{key}, {value.dtype}" for key, value in weights.items() if not value.is_floating_point()]
    if whole:
        raise UserError(
            f"{path} has {len(whole)} weights that are no floating-point numbers (first: {whole[0]}), so it was "
            "quantized or is no checkpoint of a training. Nothing was loaded. Use the file it was made from."
        )
    # double: 8-bit floats have no isfinite
    broken = [key for key, value in weights.items() if not bool(torch.isfinite(value.double()).all())]
    if broken:
        raise UserError(
            f"{path} has values that are not finite in {len(broken)} weights (first: {broken[0]}). Nothing was loaded. "
            "Use an earlier checkpoint of the run."
        )


def refuse_leftovers(report: LoadReport, path: str | Path, remedy: str, known: Collection[str] = ()) -> None:
    """A file may hold a classifier beside the backbone, but no block that the backbone lacks.

    Args:
        report: Of :func:`load_backbone`.
        path: The file.
        remedy: A sentence.
        known: Weights of the whole model that a part of it has no use for.

    Raises:
        UserError: A weight was left over.
    """
    left = [key for key in report.unexpected if not MAY_BE_LEFT.match(key) and key not in known]
    if left:
        raise UserError(
            f"{path} has {len(left)} weights that this backbone has no place for (first: {left[0]}), so it is of "
            f"another architecture. {remedy}"
        )


def load_model(
    model: nn.Module, checkpoint: Mapping[str, Any], path: str | Path, strict: bool = True
) -> None:
    """Load a whole model, detector or segmentor, from a checkpoint of its training.

    Args:
        model: Receives the weights.
        checkpoint: As :func:`load_checkpoint` read it.
        path: Where it came from, for messages.
        strict: Whether every weight must have a source and every source a weight.

    Raises:
        UserError: The weights are not this model's.
    """
    try:
        report = model.load_state_dict(checkpoint.get("state_dict", checkpoint), strict=False)
    except RuntimeError as error:  # a weight of another shape
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{path} is not a checkpoint of this config's model: {first} Use the config it was trained with."
        ) from error
    if strict and (report.missing_keys or report.unexpected_keys):
        raise UserError(
            f"{path} is not a checkpoint of this config's model: {len(report.missing_keys)} weights missing "
            f"(first: {report.missing_keys[:2]}), {len(report.unexpected_keys)} unknown "
            f"(first: {report.unexpected_keys[:2]}). Use the config it was trained with."
        )


def _is_square(module: nn.Module, weight: Tensor, value: Tensor) -> bool:
    """Whether a position embedding [1, prefix + h * h, D] can be resized to ``value``'s grid."""
    tokens = weight.shape[1] - int(getattr(module, "num_prefix_tokens", 0))
    return weight.shape[-1] == value.shape[-1] and tokens > 0 and math.isqrt(tokens) ** 2 == tokens


def _resize_position_embedding(module: nn.Module, weight: Tensor, antialias: bool) -> Tensor:
    """``weight`` [1, prefix + h * w, D], square grid, for the module's own grid."""
    height, width = module.patch_embed.grid_size  # type: ignore[union-attr, misc]
    prefix_tokens = int(getattr(module, "num_prefix_tokens", 0))
    resized = resample_abs_pos_embed(
        weight.float(), new_size=[height, width], num_prefix_tokens=prefix_tokens, antialias=antialias
    )
    return resized.to(weight.dtype)


def _some(keys: Sequence[str], limit: int = 3) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
