"""How projects name and lay out the weights of one ViT and one Swin: a table each, read in both directions.

timm's names are the common language. A template's ``{i}`` and ``{j}`` stand for a number, ``{p}`` for weight or bias;
``{i-1}`` is the number before: the merging of patches opens a stage in timm and closes the one before elsewhere.
``{qkv}`` and ``{qkv_proj}`` say that one timm tensor is three there: query, key and value, one below the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .vit_families import (
    DINOV2_EXTRAS,
    DINOV3_ROWS,
    EXTRAS,
    SWIN,
    VIT,
    Tensors,
    add_mask_token,
    add_periods,
    add_zero_biases,
    drop_zero_biases,
    fold_class_position,
    join_biases,
    split_biases,
    unfold_class_position,
)

QKV = {"qkv": ("query", "key", "value"), "qkv_proj": ("q_proj", "k_proj", "v_proj")}

_VIT: tuple[tuple[str, str, str], ...] = (
    # timm, DINO, iBOT, MAE, MoBY, detectron2; OpenMMLab; Hugging Face
    ("cls_token", "cls_token", "embeddings.cls_token"),
    ("pos_embed", "pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.{p}", "patch_embed.projection.{p}", "embeddings.patch_embeddings.projection.{p}"),
    ("blocks.{i}.norm1.{p}", "layers.{i}.ln1.{p}", "encoder.layer.{i}.layernorm_before.{p}"),
    (
        "blocks.{i}.attn.qkv.{p}",
        "layers.{i}.attn.attn.in_proj_{p}",
        "encoder.layer.{i}.attention.attention.{qkv}.{p}",
    ),
    (
        "blocks.{i}.attn.proj.{p}",
        "layers.{i}.attn.attn.out_proj.{p}",
        "encoder.layer.{i}.attention.output.dense.{p}",
    ),
    ("blocks.{i}.norm2.{p}", "layers.{i}.ln2.{p}", "encoder.layer.{i}.layernorm_after.{p}"),
    ("blocks.{i}.mlp.fc1.{p}", "layers.{i}.ffn.layers.0.0.{p}", "encoder.layer.{i}.intermediate.dense.{p}"),
    ("blocks.{i}.mlp.fc2.{p}", "layers.{i}.ffn.layers.1.{p}", "encoder.layer.{i}.output.dense.{p}"),
    ("norm.{p}", "ln1.{p}", "layernorm.{p}"),
)
_BLOCK, _MM_BLOCK = "layers.{i}.blocks.{j}", "stages.{i}.blocks.{j}"
_HF_BLOCK = "encoder.layers.{i}.blocks.{j}"
_TABLE = "relative_position_bias_table"
_SWIN: tuple[tuple[str, str, str, str], ...] = (
    # timm; original, MoBY, EsViT, iBOT, detectron2; OpenMMLab; Hugging Face
    (
        "patch_embed.proj.{p}",
        "patch_embed.proj.{p}",
        "patch_embed.projection.{p}",
        "embeddings.patch_embeddings.projection.{p}",
    ),
    ("patch_embed.norm.{p}", "patch_embed.norm.{p}", "patch_embed.norm.{p}", "embeddings.norm.{p}"),
    *(
        (
            f"layers.{{i}}.downsample.{part}.{{p}}",
            f"layers.{{i-1}}.downsample.{part}.{{p}}",
            f"stages.{{i-1}}.downsample.{part}.{{p}}",
            f"encoder.layers.{{i-1}}.downsample.{part}.{{p}}",
        )
        for part in ("norm", "reduction")
    ),
    *(
        (f"{_BLOCK}.{timm}", f"{_BLOCK}.{timm}", f"{_MM_BLOCK}.{mm}", f"{_HF_BLOCK}.{hf}")
        for timm, mm, hf in (
            ("norm1.{p}", "norm1.{p}", "layernorm_before.{p}"),
            (f"attn.{_TABLE}", f"attn.w_msa.{_TABLE}", f"attention.self.{_TABLE}"),
            ("attn.qkv.{p}", "attn.w_msa.qkv.{p}", "attention.self.{qkv}.{p}"),
            ("attn.proj.{p}", "attn.w_msa.proj.{p}", "attention.output.dense.{p}"),
            ("norm2.{p}", "norm2.{p}", "layernorm_after.{p}"),
            ("mlp.fc1.{p}", "ffn.layers.0.0.{p}", "intermediate.dense.{p}"),
            ("mlp.fc2.{p}", "ffn.layers.1.{p}", "output.dense.{p}"),
        )
    ),
    ("norm.{p}", "norm.{p}", "norm.{p}", "layernorm.{p}"),
)


Change = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Rule:
    """One line of a table: timm's template and the dialect's."""

    timm: str
    theirs: str

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Of a whole timm key and of a whole key of theirs."""
        return _pattern(self.timm), _pattern(self.theirs)


@dataclass(frozen=True)
class Dialect:
    """The names of one family of networks in one group of projects.

    Attributes:
        name: E.g. ``original Swin``.
        family: :data:`VIT` or :data:`SWIN`.
        rules: Of every weight of the backbone.
        anchor: Template of a key that no other dialect of another layout has.
        channels_first: Merged patches lie as (channel, column... of nn.Unfold), not as (column, row, channel).
        buffers: Pattern of entries that are no weights and can be computed again.
        into: What is done to the renamed weights on the way to timm, in this order.
        out: What is done to timm's weights before they are renamed.
        added: What is done after they were renamed.
    """

    name: str
    family: str
    rules: tuple[Rule, ...]
    anchor: str
    channels_first: bool = False
    buffers: str = r"(?!)"
    into: tuple[Change, ...] = ()
    out: tuple[Change, ...] = ()
    added: tuple[Change, ...] = ()

    def to_timm(self, state: Mapping[str, Tensor]) -> tuple[Tensors, list[str]]:
        """Weights with timm's names and layout, and the keys that no rule knows.

        Raises:
            ValueError: Of a query, key and value not all are there.
        """
        converted: Tensors = {}
        parts: dict[str, dict[str, Tensor]] = {}
        unknown = []
        for key, value in state.items():
            for rule in self.rules:
                if found := rule.patterns[1].fullmatch(key):
                    values = _values(found)
                    name = _fill(rule.timm, values)
                    if several := next((kind for kind in QKV if kind in values), None):
                        parts.setdefault(name, {})[QKV["qkv"][QKV[several].index(values[several])]] = value
                    else:
                        converted[name] = self._merged(name, value, from_channels_first)
                    break
            else:
                unknown.append(key)
        for name, three in parts.items():
            if set(three) != set(QKV["qkv"]):
                raise ValueError(f"{name} needs {', '.join(QKV['qkv'])}; only {', '.join(three)} is there")
            converted[name] = torch.cat([three[part] for part in QKV["qkv"]])
        for change in self.into:
            converted = change(converted)
        return converted, unknown

    def knows(self, key: str) -> bool:
        """Whether a key is that of a weight."""
        return any(rule.patterns[1].fullmatch(key) for rule in self.rules)

    def from_timm(self, state: Mapping[str, Tensor]) -> Tensors:
        """timm's weights with the dialect's names and layout.

        Raises:
            ValueError: A key is none of this family's.
        """
        converted: Tensors = {}
        for name, value in self.prepared(state).items():
            for rule in self.rules:
                if found := rule.patterns[0].fullmatch(name):
                    values = _values(found)
                    if several := next((kind for kind in QKV if f"{{{kind}}}" in rule.theirs), None):
                        for part, piece in zip(QKV[several], value.chunk(3), strict=True):
                            converted[_fill(rule.theirs, {**values, several: part})] = piece
                    else:
                        converted[_fill(rule.theirs, values)] = self._merged(name, value, to_channels_first)
                    break
            else:
                raise ValueError(f"{name} is no weight of a {self.family}")
        for change in self.added:
            converted = change(converted)
        return converted

    def prepared(self, state: Mapping[str, Tensor]) -> Tensors:
        """timm's weights in the dialect's layout, still with timm's names."""
        given = dict(state)
        for change in self.out:
            given = change(given)
        return given

    def _merged(self, name: str, value: Tensor, reorder: Callable[[Tensor], Tensor]) -> Tensor:
        """Weights over the channels of four merged patches are reordered where the dialect has them otherwise."""
        return reorder(value) if self.channels_first and ".downsample." in name else value


def to_channels_first(value: Tensor) -> Tensor:
    """[..., 4 C] over (column, row, channel) of 2 x 2 patches to (channel, row, column), as nn.Unfold has them."""
    return value.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)


def from_channels_first(value: Tensor) -> Tensor:
    """The inverse of :func:`to_channels_first`."""
    return value.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)


def _pattern(template: str) -> re.Pattern[str]:
    """Of a whole key; ``{i-1}`` becomes the group ``before``."""
    groups = {"i": r"\d+", "j": r"\d+", "p": "weight|bias", "i-1": r"\d+"}
    groups |= {kind: "|".join(parts) for kind, parts in QKV.items()}
    pieces = re.split(r"\{(.+?)\}", template)
    text = "".join(
        re.escape(piece) if index % 2 == 0 else f"(?P<{piece.replace('i-1', 'before')}>{groups[piece]})"
        for index, piece in enumerate(pieces)
    )
    return re.compile(text)


def _values(found: re.Match[str]) -> dict[str, str]:
    """The placeholders' values, ``i`` where ``{i-1}`` stood."""
    values = found.groupdict()
    if "before" in values:
        values["i"] = str(int(values.pop("before")) + 1)
    return values


def _fill(template: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders filled in."""
    before = str(int(values["i"]) - 1) if "{i-1}" in template else ""
    return re.sub(r"\{(.+?)\}", lambda found: before if found[1] == "i-1" else values[found[1]], template)


def _rules(table: tuple[tuple[str | None, ...], ...], column: int) -> tuple[Rule, ...]:
    return tuple(Rule(str(row[0]), theirs) for row in table if (theirs := row[column]) is not None)


def _hf_dinov2(rule: Rule) -> Rule:
    """transformers' DINOv2 has other names than its ViT for norms and MLP."""
    theirs = rule.theirs
    for name, other in (
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("intermediate.dense", "mlp.fc1"),
    ):
        theirs = theirs.replace(name, other)
    return Rule(rule.timm, theirs.replace("layer.{i}.output.dense", "layer.{i}.mlp.fc2"))


_INDEX = r".*(relative_position_index|attn_mask|relative_coords_table)"
_TIMM_ANCHOR, _HF_ANCHOR = "blocks.{i}.attn.qkv.weight", "encoder.layer.{i}.attention.attention.query.weight"
TIMM_VIT = Dialect("timm ViT", VIT, (*_rules(_VIT, 0), *(Rule(name, name) for name in EXTRAS)), _TIMM_ANCHOR)
MM_VIT = Dialect("OpenMMLab ViT", VIT, _rules(_VIT, 1), "layers.{i}.attn.attn.in_proj_weight")
HF_VIT = Dialect(
    "Hugging Face ViT",
    VIT,
    (*_rules(_VIT, 2), Rule("dist_token", "embeddings.distillation_token")),
    _HF_ANCHOR,
)
OWN_DINOV2 = Dialect(
    "DINOv2",
    VIT,
    (*_rules(_VIT, 0), *_rules(DINOV2_EXTRAS, 1)),
    _TIMM_ANCHOR,
    into=(fold_class_position,),
    out=(unfold_class_position,),
    added=(add_mask_token("mask_token", 2),),
)
HF_DINOV2 = Dialect(
    "Hugging Face DINOv2",
    VIT,
    (*(_hf_dinov2(rule) for rule in _rules(_VIT, 2)), *_rules(DINOV2_EXTRAS, 2)),
    _HF_ANCHOR,
    into=(fold_class_position,),
    out=(unfold_class_position,),
    added=(add_mask_token("embeddings.mask_token", 2),),
)
OWN_DINOV3 = Dialect(
    "DINOv3",
    VIT,
    _rules(DINOV3_ROWS, 1),
    _TIMM_ANCHOR,
    buffers=r"rope_embed\.periods",
    into=(split_biases,),
    out=(join_biases,),
    added=(add_periods,),
)
HF_DINOV3 = Dialect(
    "Hugging Face DINOv3",
    VIT,
    _rules(DINOV3_ROWS, 2),
    "layer.{i}.attention.{qkv_proj}.weight",
    into=(drop_zero_biases,),
    out=(add_zero_biases,),
    added=(add_mask_token("embeddings.mask_token", 3),),
)
TIMM_SWIN = Dialect("timm Swin", SWIN, _rules(_SWIN, 0), f"{_BLOCK}.attn.qkv.weight", buffers=_INDEX)
ORIGINAL_SWIN = Dialect("original Swin", SWIN, _rules(_SWIN, 1), f"{_BLOCK}.attn.qkv.weight", buffers=_INDEX)
MM_SWIN = Dialect(
    "OpenMMLab Swin",
    SWIN,
    _rules(_SWIN, 2),
    f"{_MM_BLOCK}.attn.w_msa.qkv.weight",
    channels_first=True,
    buffers=_INDEX,
)
HF_SWIN = Dialect(
    "Hugging Face Swin", SWIN, _rules(_SWIN, 3), f"{_HF_BLOCK}.attention.self.query.weight", buffers=_INDEX
)
# Of one anchor: the key that tells a dialect from the plain one, and which it is
MARKED = {
    TIMM_VIT: (("register_tokens", OWN_DINOV2), ("storage_tokens", OWN_DINOV3)),
    HF_VIT: (("encoder.layer.0.layer_scale1.lambda1", HF_DINOV2),),
}


def anchors(keys: list[str]) -> list[tuple[Dialect, str]]:
    """Every backbone in a file: its dialect and what stands before its keys.

    timm's and the original's Swin differ in the stage that owns a merging: the first has none in timm.
    """
    found: list[tuple[Dialect, str]] = []
    there = set(keys)
    for dialect in (TIMM_VIT, MM_VIT, HF_VIT, HF_DINOV3, TIMM_SWIN, MM_SWIN, HF_SWIN):
        ends = re.compile(rf"(?P<prefix>(?:.*\.)?){_pattern(dialect.anchor).pattern}")
        prefixes = {match["prefix"] for key in keys if (match := ends.fullmatch(key))}
        for prefix in sorted(prefixes):
            if dialect is TIMM_VIT and re.search(r"(layers|stages)\.\d+\.$", prefix):
                continue  # a block of a Swin
            first_merging = f"{prefix}layers.0.downsample."
            if dialect is TIMM_SWIN and any(key.startswith(first_merging) for key in keys):
                found.append((ORIGINAL_SWIN, prefix))
            else:
                marked = (other for mark, other in MARKED.get(dialect, ()) if f"{prefix}{mark}" in there)
                found.append((next(marked, dialect), prefix))
    return found
