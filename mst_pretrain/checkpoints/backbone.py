"""The backbone in anybody's checkpoint, with timm's names: every weight, or a refusal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table_simple
from torch import Tensor

from ..architecture import Architecture, architecture_of
from ..errors import UserError
from .dialects import Tensors
from .formats import NORM_EPS, Reading, recognise
from .reading import CheckpointFile, read_file

HALF = (torch.float16, torch.bfloat16)


@dataclass
class Backbone:
    """The weights of one backbone with timm's names, and what reading them found.

    Attributes:
        state: timm's names.
        architecture: The model they belong to.
        reading: How the file was read.
        file: The file.
        missing: ``name (shape)`` of weights that the file lacks, all of them allowed to.
        unexpected: ``name (shape)`` of what is not the backbone's: heads, decoders, output norms.
        resized: ``name old shape -> new shape``.
        widened: Number of half-precision weights, which became float32.
        buffers: Number of entries that are computed again.
    """

    state: Tensors
    architecture: Architecture
    reading: Reading
    file: CheckpointFile
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    widened: int = 0
    buffers: int = 0

    @property
    def norm_eps(self) -> float:
        """Of the LayerNorms that the weights were trained with, where the file or its format says; else timm's."""
        said = (self.file.config or {}).get("layer_norm_eps", self.file.meta.get("norm_eps"))
        known = NORM_EPS.get((self.reading.format, self.reading.dialect.family))
        return float(said or known or self.architecture.norm_eps)

    def __str__(self) -> str:
        lines = [
            f"read as {self.reading.format}: {self.reading.why}",
            f"network: {self.reading.role or 'the only one in the file'}",
            f"architecture: {self.architecture}",
            f"matched: {len(self.state)} of {len(self.state) + len(self.missing)} weights",
        ]
        beside = len(self.file.tensors) - len(self.state) - len(self.unexpected) - self.buffers
        for name in ("missing", "unexpected", "resized"):
            entries: list[str] = getattr(self, name)
            shown = "; ".join(entries[:8]) + (f"; and {len(entries) - 8} more" if len(entries) > 8 else "")
            lines.append(f"{name}: {len(entries)}" + (f" ({shown})" if entries else ""))
        if self.reading.prefix and beside > 0:
            lines.append(f"beside it in the file: {beside} tensors of heads and other networks")
        if self.norm_eps != self.architecture.norm_eps:
            lines.append(
                f"norm epsilon: {self.norm_eps:g} in the source, {self.architecture.norm_eps:g} in timm's model: exact "
                "features need it set"
            )
        if self.widened:
            lines.append(f"half precision widened to float32: {self.widened}")
        return "\n".join(lines)


def read_backbone(
    source: str | Path,
    *,
    source_format: str = "auto",
    which: str | None = None,
    prefix: str | None = None,
    model: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    image_size: Sequence[int] | None = None,
    window_size: int | None = None,
    allow_missing: Sequence[str] = (),
    trusted: bool = False,
) -> Backbone:
    """Read the backbone of anybody's checkpoint.

    Args:
        source: File, or Hugging Face folder.
        source_format: Name in :data:`FORMATS`, or ``auto``.
        which: ``teacher`` or ``student``; None for the one whose figures the file's authors publish.
        prefix: Exactly what stands before the backbone's keys; None finds it.
        model: timm name, for a file whose shapes do not tell.
        model_args: timm arguments that differ from the named model's.
        image_size: (height, width) or (side,) in pixels; a ViT's positions are resized to its grid (bicubic,
            antialiased as in timm). None keeps them.
        window_size: A Swin's bias tables are resized to it (bicubic). None keeps them.
        allow_missing: Patterns (``re.match``) of timm names that the file may lack.
        trusted: Whether the file may run code; see :func:`load_checkpoint`.

    Raises:
        UserError: The file cannot be read, is ambiguous or of another format, lacks a weight, has one of another
            shape, one the architecture has no place for, or one that is not finite.
    """
    file = read_file(source, trusted)
    reading = recognise(file, source_format, which, prefix)
    own = {
        key[len(reading.prefix) :]: value
        for key, value in file.tensors.items()
        if key.startswith(reading.prefix)
    }
    try:
        state, unknown = reading.dialect.to_timm(own)
    except ValueError as error:
        raise UserError(f"{file.path} is incomplete: {error}. Copy it again.") from error
    buffers = [key for key in unknown if re.fullmatch(reading.dialect.buffers, key)]
    heads = {rule.theirs.split(".")[0] for rule in reading.dialect.rules}
    foreign = [key for key in unknown if key not in buffers and key.split(".")[0] in heads]
    if foreign:
        raise UserError(
            f"{file.path} has {len(foreign)} weights inside its backbone that a {reading.dialect.name} lacks (first: "
            f"{foreign[0]}), so it is of another architecture. Without them its features would be others."
        )
    unexpected = [f"{key} {tuple(own[key].shape)}" for key in unknown if key not in buffers]
    architecture = architecture_of(file.meta, state, file.path, file.config, model, model_args)
    widened = sum(value.dtype in HALF for value in state.values())
    state = {key: value.float() if value.dtype in HALF else value for key, value in state.items()}
    missing = _check(state, architecture, file.path, allow_missing)
    backbone = Backbone(
        state,
        architecture,
        reading,
        file,
        missing,
        sorted(unexpected),
        widened=widened,
        buffers=len(buffers),
    )
    if image_size is not None or window_size is not None:
        _resize(backbone, image_size, window_size)
    return backbone


def _check(state: Tensors, architecture: Architecture, path: Path, allow_missing: Sequence[str]) -> list[str]:
    """Every weight of the architecture is there, of its shape, and finite; returns those allowed to be missing.

    Raises:
        UserError: They are not.
    """
    expected = architecture.shapes()
    absent = [name for name in expected if name not in state]
    lost = [name for name in absent if not any(re.match(pattern, name) for pattern in allow_missing)]
    extra = [name for name in state if name not in expected]
    other = [
        f"{name} {tuple(value.shape)} for {expected[name]}"
        for name, value in state.items()
        if name in expected and tuple(value.shape) != expected[name]
    ]
    problems = [
        f"{len(names)} {what} (first: {', '.join(names[:3])})"
        for names, what in (
            (lost, "weights missing"),
            (extra, "weights that it has no place for"),
            (other, "weights of another shape"),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{path} is not a whole {architecture}: {'; '.join(problems)}. Nothing was written. It was cut, or is of "
            "another architecture (--model, --model-args); weights that may be missing: --allow-missing PATTERN"
        )
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise UserError(
            f"{path} has values that are not finite in {len(broken)} weights (first: {broken[0]}). Nothing was "
            "written. Use an earlier checkpoint of the run."
        )
    return [f"{name} {expected[name]}" for name in absent]


def _resize(backbone: Backbone, image_size: Sequence[int] | None, window_size: int | None) -> None:
    """Positions for another grid, bias tables for another window.

    Raises:
        UserError: The family has no such thing.
    """
    architecture, state = backbone.architecture, backbone.state
    if image_size is not None:
        if architecture.is_swin:
            raise UserError("--img-size resizes a ViT's positions; a Swin has none. Use --window.")
        height, width = (image_size[0], image_size[-1])
        target = architecture.changed(img_size=height if height == width else (height, width))
        old = state["pos_embed"]
        state["pos_embed"] = resample_abs_pos_embed(
            old.float(), list(target.grid), list(architecture.grid), num_prefix_tokens=1
        )
        _note(backbone, "pos_embed", old)
        backbone.architecture = target
    if window_size is not None:
        if not architecture.is_swin:
            raise UserError("--window resizes a Swin's bias tables; a ViT has none. Use --img-size.")
        side = 2 * window_size - 1
        for name, table in state.items():
            if name.endswith("relative_position_bias_table"):
                shape = (side * side, table.shape[1])
                state[name] = resize_rel_pos_bias_table_simple(table.float(), (window_size,) * 2, shape)
                _note(backbone, name, table)
        backbone.architecture = architecture.changed(window_size=window_size)


def _note(backbone: Backbone, name: str, old: Tensor) -> None:
    backbone.resized.append(f"{name} {tuple(old.shape)} -> {tuple(backbone.state[name].shape)}")
