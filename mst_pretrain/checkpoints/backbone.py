"""The one reader: the backbone in anybody's checkpoint, with timm's names, every weight of it or a refusal."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from timm.layers import resize_rel_pos_bias_table_simple
from torch import Tensor

from ..method.vit_tokens import resize_positions
from ..runtime.errors import UserError
from ..runtime.terminal import shown_message
from .architecture import Architecture, Shapes, architecture_of, told_heads
from .choices import POSITION_RULES, TIMM
from .formats import HEADS, NORM_EPS, Reading, below, recognise
from .kinds import other_network
from .reading import CheckpointFile, read_file
from .storage import refuse_broken, refuse_odd
from .timm_keys import TIMM_SWIN, TIMM_VIT, VIT, Tensors, anchors
from .vit_families import DINOV3, SWIN, is_extra, kind_of_weights, summary

# What may stand beside a backbone's weights without entering its features.
BESIDE = re.compile(
    r"(head|heads|head_dist|head_dense|fc|fc_norm|classifier|pooler|projection_head|projector|predictor|decoder\w*"
    r"|mask_token|masked_embed|embeddings\.mask_token|norm\d)(\.|$)"
)
HF_EPS = {"dinov2": 1e-6, "dinov2_with_registers": 1e-6, "dinov3_vit": 1e-5}  # transformers' defaults
PROBLEMS = {
    "missing": "weights missing",
    "mismatched": "weights of another shape",
    "extra": "weights that it has no place for",
}


@dataclass
class Backbone:
    """The weights of one backbone with timm's names, and what reading them found.

    Attributes:
        file: The file.
        reading: How the file was read.
        state: Weights by timm's names; float32 after :meth:`fit`.
        left: What is not the backbone's, by its name behind the prefix: heads, decoders, output norms.
        extra: Names behind the prefix that may be the backbone's although its dialect does not know them.
        beside: Number of the file's tensors that do not stand below the prefix.
        missing: ``name (shape)`` of weights that the file lacks, all of them allowed to.
        resized: ``name old shape -> new shape``.
        chosen_positions: Rule of resizing a ViT's positions, where one was asked for.
    """

    file: CheckpointFile
    reading: Reading
    state: Tensors
    left: Tensors
    extra: list[str]
    beside: int
    missing: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    chosen_positions: str | None = None

    @cached_property
    def architecture(self) -> Architecture:
        """The model that the weights belong to; see :func:`architecture_of`."""
        return self.architecture_as()

    def architecture_as(
        self, model: str | None = None, model_args: Mapping[str, Any] | None = None
    ) -> Architecture:
        """The model that the weights belong to where a name or arguments are given; see :func:`architecture_of`."""
        file, heads = self.file, self._heads_of_format
        return architecture_of(file.meta, self.state, file.path, file.config, model, model_args, heads)

    @property
    def positions(self) -> str | None:
        """Rule of resizing a ViT's learned positions, as asked for or as the file says; None where neither does."""
        said = self.chosen_positions or self.file.meta.get("positions")
        return said if said in POSITION_RULES else None

    @property
    def _heads_of_format(self) -> int | None:
        cls_token = self.state.get("cls_token")
        return None if cls_token is None else HEADS.get((self.reading.format, cls_token.shape[-1]))

    @property
    def said_heads(self) -> int | None:
        """Heads of a ViT's attention, which are in no weight; None where neither file nor format says."""
        if self.reading.dialect.family != VIT:
            return None
        return told_heads(self.file.meta, self.file.config) or self._heads_of_format

    @property
    def said_norm_eps(self) -> float | None:
        """Epsilon of the LayerNorms that the weights were trained with; None where neither file nor format says."""
        family = self.reading.dialect.family
        if self.file.config is not None:  # transformers' defaults
            usual = HF_EPS.get(str(self.file.config.get("model_type")), 1e-12 if family == VIT else 1e-5)
            said = self.file.config.get("layer_norm_eps", usual)
        else:
            said = self.file.meta.get("norm_eps", NORM_EPS.get((self.reading.format, family)))
        try:
            return float(said)
        except (TypeError, ValueError):
            return None

    @property
    def norm_eps(self) -> float:
        """:attr:`said_norm_eps`, or else that of timm's model."""
        said = self.said_norm_eps
        return self.architecture.norm_eps if said is None else said

    def differences(self, expected: Shapes, spare: Collection[str] = ()) -> dict[str, list[str]]:
        """The weights that are missing, of another shape or extra in a model, by the keys of :data:`PROBLEMS`."""
        shapes = {name: tuple(value.shape) for name, value in self.state.items()}
        return {
            "missing": [name for name in expected if name not in shapes],
            "mismatched": [
                f"{name} {shape} for {expected[name]}"
                for name, shape in shapes.items()
                if name in expected and shape != expected[name]
            ],
            "extra": [*(name for name in shapes if name not in expected and name not in spare), *self.extra],
        }

    def fit(
        self, expected: Shapes, what: str, spare: Collection[str] = (), allow_missing: Sequence[str] = ()
    ) -> None:
        """Keep the weights of a model, all of them, in float32.

        Args:
            expected: The model's shapes by timm's names.
            what: The model, for messages.
            spare: Names that it would have as a whole, and that may be left out.
            allow_missing: Patterns (``re.match``) of names that may be missing.

        Raises:
            UserError: A weight is missing, of another shape, without a place in the model, or not finite; see also
                :func:`check_values`.
        """
        problems = self.differences(expected, spare)
        absent = problems["missing"]
        problems["missing"] = [name for name in absent if not _matches(name, allow_missing)]
        found = [
            f"{len(names)} {PROBLEMS[kind]} (first: {', '.join(names[:3])})"
            for kind, names in problems.items()
            if names
        ]
        given, wanted = kind_of_weights(self.state), kind_of_weights(expected)
        if found and given and wanted and (given == SWIN) != (wanted == SWIN):
            raise UserError(
                f"{self.file.path} is a {given}, but {what} is a {wanted}: nothing was loaded. Give a checkpoint of a "
                f"{wanted}, or a config of a {given}; mst finetune TASK DATA --init {self.file.path} makes one. [S02]"
            )
        if found:
            holds, takes = summary(self.state), summary(expected)
            differ = f"it holds a {holds}, and a {takes} was expected. " if holds and takes != holds else ""
            raise UserError(
                f"{self.file.path} does not fit {what}: {differ}{'; '.join(found)}. Nothing was loaded: it lacks a "
                "part, or is of another architecture. Give the model it was trained with (--model and --model-args; in "
                f"a config, the backbone's), which mst finetune TASK DATA --init {self.file.path} does by itself; or "
                "convert it with tools/convert_checkpoint.py, where --allow-missing PATTERN and --ignore PATTERN name "
                "what may be missing or is not a part of the backbone."
            )
        self.missing = [f"{name} {expected[name]}" for name in absent]
        kept = {name: self.state.pop(name) for name in expected if name in self.state}
        self.left |= self.state
        check_values(self.file, kept)
        self.state = {name: value.float() for name, value in kept.items()}
        refuse_broken(self.file.path, self.state)

    def note_resized(self, name: str, new: Tensor) -> None:
        """Replace a weight by a resized one."""
        self.resized.append(f"{name} {tuple(self.state[name].shape)} -> {tuple(new.shape)}")
        self.state[name] = new

    def __str__(self) -> str:
        several = len(anchors(list(self.file.tensors))) > 1
        network = f"the one below '{self.reading.prefix}'" if several else "the only one in the file"
        lines = [
            f"read as {self.reading.format}: {self.reading.why}",
            f"network: {self.reading.role or network}",
            f"architecture: {self.architecture}",
            f"matched: {len(self.state)} of {len(self.state) + len(self.missing)} weights",
        ]
        unexpected = sorted(f"{name} {tuple(value.shape)}" for name, value in self.left.items())
        for name, entries in (
            ("missing", self.missing),
            ("unexpected", unexpected),
            ("resized", self.resized),
        ):
            shown = "; ".join(entries[:8]) + (f"; and {len(entries) - 8} more" if len(entries) > 8 else "")
            lines.append(f"{name}: {len(entries)}" + (f" ({shown})" if entries else ""))
        if self.beside:
            lines.append(f"beside it in the file: {self.beside} tensors of heads and other networks")
        if self.norm_eps != self.architecture.norm_eps:
            lines.append(
                f"norm epsilon: {self.norm_eps:g} in the source, {self.architecture.norm_eps:g} in timm's model: exact "
                "features need it set"
            )
        return shown_message("\n".join(lines))


def backbone_at(file: CheckpointFile, reading: Reading, ignore: Sequence[str] = ()) -> Backbone:
    """What stands at one place of a file, with timm's names; not yet compared with any model."""
    own, dialect = below(file, reading.prefix), reading.dialect
    if kind_of_weights(own) != DINOV3 and (other := other_network(own)):
        raise UserError(f"{file.path} holds {other}. Only plain ViTs and Swins are read. Nothing was loaded.")
    weights = {
        name: kind
        for name, kind in file.odd.items()
        if name.startswith(reading.prefix) and dialect.knows(name[len(reading.prefix) :])
    }
    refuse_odd(file.path, weights)
    check_values(file, {name: value for name, value in own.items() if dialect.knows(name)})
    try:
        optional = [key for key in own if is_extra(key) and _matches(key, ignore)]
        state, unknown = dialect.to_timm({key: value for key, value in own.items() if key not in optional})
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{file.path} is incomplete or of another shape: {error}. Take the weights again from the file that these "
            "came from."
        ) from error
    unknown = [key for key in unknown if not re.fullmatch(dialect.buffers, key)]
    left = [key for key in unknown if BESIDE.match(key) or _matches(key, ignore)]
    extra = [key for key in unknown if key not in left]
    left += optional
    if dialect in (TIMM_VIT, TIMM_SWIN):  # of a model that is not plain: registers, LayerScale, ...
        state, extra = state | {key: own[key] for key in extra}, []
    return Backbone(
        file, reading, state, {key: own[key] for key in left}, extra, len(file.tensors) - len(own)
    )


def check_values(file: CheckpointFile, weights: Tensors) -> None:
    """Refuse weights without values, as ZeRO-3 leaves them, and weights that are not dense floating-point tensors.

    Args:
        file: Where they are from, for the message.
        weights: By name.

    Raises:
        UserError: Some are on the meta device, empty, quantized, of integers, or sparse.
    """
    shapes = [name for name, value in weights.items() if value.is_meta]
    if shapes:
        raise UserError(
            f"{file.path} has {len(shapes)} weights on the meta device (first: {shapes[0]}): shapes without values. "
            "Nothing was loaded. Save the model again after its weights were loaded."
        )
    empty = [name for name, value in weights.items() if not value.numel()]
    if empty:
        raise UserError(
            f"{file.path} has {len(empty)} weights without any value (first: {empty[0]}), as DeepSpeed's ZeRO-3 leaves "
            "them: the values are in the files of the single processes. Nothing was loaded. Join them with the "
            "zero_to_fp32.py beside the checkpoint's folder (python zero_to_fp32.py . NEW), and give what it wrote."
        )
    odd = [n for n, v in weights.items() if not v.is_floating_point() or v.layout != torch.strided]
    if odd:
        raise UserError(
            f"{file.path} has {len(odd)} weights of type {weights[odd[0]].dtype}, {weights[odd[0]].layout} (first: "
            f"{odd[0]}), so it was quantized or is not a checkpoint of a training. Nothing was loaded. Use the "
            "file it was made from."
        )


def find_backbone(
    source: str | Path,
    source_format: str = "auto",
    which: str | None = None,
    prefix: str | None = None,
    ignore: Sequence[str] = (),
    trusted: bool = False,
) -> Backbone:
    """The backbone of a checkpoint, not yet compared with any model.

    Args:
        source: File, or Hugging Face folder.
        source_format: Name in :data:`FORMATS`, or ``auto``.
        which: ``teacher`` or ``student``; None for the one whose figures the file's authors publish.
        prefix: Exactly what stands before the backbone's keys; None finds it.
        ignore: Patterns of the file's names, behind the prefix, that are left out although they may be the network's.
        trusted: Whether the file may run code; see :func:`load_checkpoint`.

    Raises:
        UserError: The file cannot be read, is ambiguous or of another format.
    """
    file = read_file(source, trusted)
    return backbone_at(file, recognise(file, source_format, which, prefix), ignore)


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
    positions: str | None = None,
    allow_missing: Sequence[str] = (),
    ignore: Sequence[str] = (),
    trusted: bool = False,
) -> Backbone:
    """Read the backbone of anybody's checkpoint, whole; for a module that is there, see :func:`load_backbone`.

    Args:
        source: As :func:`find_backbone` takes it, with ``source_format``, ``which``, ``prefix``, ``ignore`` and
            ``trusted``.
        model: timm name, for a file whose shapes do not tell.
        model_args: timm arguments that differ from the named model's.
        image_size: (height, width) or (side,) in pixels that the model is to be built for; a ViT's positions are
            resized to its grid. None keeps them.
        window_size: A Swin's bias tables are resized to it (bicubic). None keeps them.
        positions: Rule of resizing a ViT's learned positions, here and later; None takes the file's, or timm's here
            and none later.
        allow_missing: Patterns (``re.match``) of timm names that the file may lack.

    Raises:
        UserError: The file cannot be read, is ambiguous or of another format, lacks a weight, has one of another
            shape, one the architecture has no place for, or one that is not finite.
    """
    backbone = find_backbone(source, source_format, which, prefix, ignore, trusted)
    architecture = backbone.architecture = backbone.architecture_as(model, model_args)
    backbone.fit(architecture.shapes(), f"a whole {architecture}", allow_missing=allow_missing)
    backbone.chosen_positions = positions
    if positions is not None and "pos_embed" not in backbone.state:
        raise UserError(
            f"{source} has no learned positions, so --positions {positions} says nothing. Leave it out."
        )
    if image_size is not None or window_size is not None:
        _resize(backbone, image_size, window_size)
    return backbone


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.match(pattern, name) for pattern in patterns)


def _resize(backbone: Backbone, image_size: Sequence[int] | None, window_size: int | None) -> None:
    """Positions for another grid, bias tables for another window, or a refusal where these do not fit."""
    architecture, state = backbone.architecture, backbone.state
    target = architecture
    if image_size is not None:
        if min(image_size) < 1 or any(side % architecture.patch_size for side in image_size):
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
        for name, table in list(state.items()):
            if name.endswith("relative_position_bias_table"):
                shape = (side * side, table.shape[1])
                resized = resize_rel_pos_bias_table_simple(table, (window_size,) * 2, shape)
                backbone.note_resized(name, resized)
    elif image_size is not None and "pos_embed" in state:
        before = state["pos_embed"].shape[1] - math.prod(architecture.grid)  # [CLS], registers
        rule = backbone.positions or TIMM
        positions = resize_positions(state["pos_embed"], target.grid, architecture.grid, before, rule)
        backbone.note_resized("pos_embed", positions)
    expected = target.shapes()
    if any(tuple(value.shape) != expected[name] for name, value in state.items()):
        raise UserError(
            f"a {target} has other bias tables: where a map is smaller than the window, the window shrinks. Give "
            "--img-size too, e.g. --window 12 --img-size 384."
        )
    backbone.architecture = target
