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

from ..runtime.errors import UserError
from .architecture import Architecture, architecture_of
from .dialects import VIT, Tensors
from .formats import NORM_EPS, Reading, below, recognise
from .reading import CheckpointFile, read_file

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# What may stand beside a backbone's weights without entering its features.
BESIDE = re.compile(
    r"(head|heads|head_dist|head_dense|fc|fc_norm|classifier|pooler|projection_head|projector|predictor|decoder\w*"
    r"|mask_token|masked_embed|embeddings\.mask_token|norm\d)(\.|$)"
)
# Arguments of a timm model that every format can express.
EXPRESSIBLE = {
    *("img_size", "patch_size", "embed_dim", "depth", "depths", "num_heads", "mlp_ratio", "window_size"),
    *("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate", "global_pool"),
    *("dynamic_img_size", "strict_img_size"),
}


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
        cast: Number of weights of another precision, which became float32.
        buffers: Number of entries that are computed again.
    """

    state: Tensors
    architecture: Architecture
    reading: Reading
    file: CheckpointFile
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    cast: int = 0
    buffers: int = 0

    @property
    def norm_eps(self) -> float:
        """Of the LayerNorms that the weights were trained with, where the file or its format says; else timm's."""
        family = self.reading.dialect.family
        if self.file.config is not None:  # transformers' defaults
            said = self.file.config.get("layer_norm_eps", 1e-12 if family == VIT else 1e-5)
        else:
            said = self.file.meta.get("norm_eps", NORM_EPS.get((self.reading.format, family)))
        try:
            return float(said)
        except (TypeError, ValueError):  # not said
            return self.architecture.norm_eps

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
        if self.cast:
            lines.append(f"cast to float32: {self.cast}")
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
    ignore: Sequence[str] = (),
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
        image_size: (height, width) or (side,) in pixels that the model is to be built for; a ViT's positions are
            resized to its grid (bicubic, antialiased as in timm). None keeps them.
        window_size: A Swin's bias tables are resized to it (bicubic). None keeps them.
        allow_missing: Patterns (``re.match``) of timm names that the file may lack.
        ignore: Patterns of the file's names, behind the prefix, that are left out although they may be the network's.
        trusted: Whether the file may run code; see :func:`load_checkpoint`.

    Raises:
        UserError: The file cannot be read, is ambiguous or of another format, lacks a weight, has one of another
            shape, one the architecture has no place for, or one that is not finite.
    """
    file = read_file(source, trusted)
    reading = recognise(file, source_format, which, prefix)
    own = below(file, reading.prefix)
    try:
        state, unknown = reading.dialect.to_timm(own)
    except ValueError as error:
        raise UserError(f"{file.path} is incomplete: {error}. Copy it again.") from error
    buffers = [key for key in unknown if re.fullmatch(reading.dialect.buffers, key)]
    left = [key for key in unknown if key not in buffers]
    foreign = [
        key for key in left if not BESIDE.match(key) and not any(re.match(pattern, key) for pattern in ignore)
    ]
    if foreign:
        raise UserError(
            f"{file.path} has {len(foreign)} weights that a {reading.dialect.name} has no place for (first: "
            f"{foreign[0]}), so it may be of another architecture, whose features would be others without them. If "
            "they are no part of the backbone: --ignore PATTERN"
        )
    unexpected = [f"{key} {tuple(own[key].shape)}" for key in left]
    architecture = architecture_of(file.meta, state, file.path, file.config, model, model_args)
    expected = architecture.shapes()  # the model can be built
    _refuse_inexpressible(architecture, expected, file.path)
    odd = [key for key, v in state.items() if v.dtype not in PRECISIONS or v.layout != torch.strided]
    if odd:
        raise UserError(
            f"{file.path} has {len(odd)} weights of type {state[odd[0]].dtype}, {state[odd[0]].layout} (first: "
            f"{odd[0]}). Give a file of floating-point weights."
        )
    cast = sum(value.dtype != torch.float32 for value in state.values())
    state = {key: value.float() for key, value in state.items()}
    missing = _check(state, architecture, expected, file.path, allow_missing)
    backbone = Backbone(
        state,
        architecture,
        reading,
        file,
        missing,
        sorted(unexpected),
        cast=cast,
        buffers=len(buffers),
    )
    if image_size is not None or window_size is not None:
        _resize(backbone, image_size, window_size)
    return backbone


def _refuse_inexpressible(
    architecture: Architecture, expected: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Refuse what no weight says and other formats do not have.

    Raises:
        UserError: An argument of the model, or a ViT whose [CLS] has no position.
    """
    inexpressible = set(architecture.arguments) - EXPRESSIBLE
    if inexpressible:
        raise UserError(
            f"{path}: '{min(inexpressible)}' of the model is in no weight and cannot be written for others."
        )
    tokens = 1 + architecture.grid[0] * architecture.grid[1]
    if not architecture.is_swin and expected.get("pos_embed", (1, 0))[1] != tokens:
        raise UserError(
            f"{path}: {architecture.name} has no position of its [CLS] token, which every other format expects. It "
            "cannot be converted; give --model the one the file was trained with, if that was another."
        )


def _check(
    state: Tensors,
    architecture: Architecture,
    expected: Mapping[str, tuple[int, ...]],
    path: Path,
    allow_missing: Sequence[str],
) -> list[str]:
    """Every weight of the architecture is there, of its shape, and finite; returns those allowed to be missing.

    Raises:
        UserError: They are not.
    """
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
        UserError: The family has no such thing, or the sizes do not fit each other.
    """
    architecture, state = backbone.architecture, backbone.state
    target = architecture
    if image_size is not None:
        if min(image_size) < architecture.patch_size or any(
            side % architecture.patch_size for side in image_size
        ):
            raise UserError(
                f"--img-size {tuple(image_size)}: give multiples of the patch, {architecture.patch_size}."
            )
        height, width = (image_size[0], image_size[-1])
        target = target.changed(img_size=height if height == width else (height, width))
    if window_size is not None:
        if not architecture.is_swin:
            raise UserError("--window resizes a Swin's bias tables; a ViT has none. Use --img-size.")
        if window_size < 2:
            raise UserError(f"--window {window_size}: give 2 or more.")
        target = target.changed(window_size=window_size)
        side = 2 * window_size - 1
        for name, table in state.items():
            if name.endswith("relative_position_bias_table"):
                shape = (side * side, table.shape[1])
                state[name] = resize_rel_pos_bias_table_simple(table.float(), (window_size,) * 2, shape)
                _note(backbone, name, table)
    elif image_size is not None and not architecture.is_swin:
        old = state["pos_embed"]
        state["pos_embed"] = resample_abs_pos_embed(
            old, list(target.grid), list(architecture.grid), num_prefix_tokens=1
        )
        _note(backbone, "pos_embed", old)
    expected = target.shapes()
    if any(tuple(value.shape) != expected[name] for name, value in state.items()):
        raise UserError(
            f"a {target} has other bias tables: where a map is smaller than the window, the window shrinks. Give "
            "--img-size too, e.g. --window 12 --img-size 384."
        )
    backbone.architecture = target


def _note(backbone: Backbone, name: str, old: Tensor) -> None:
    backbone.resized.append(f"{name} {tuple(old.shape)} -> {tuple(backbone.state[name].shape)}")
