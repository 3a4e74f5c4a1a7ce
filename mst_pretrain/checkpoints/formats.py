"""Whose file is it, where in it is the backbone, and what does a file for others look like.

A format is a dialect and a prefix. ``teacher`` is the averaged network, ``student`` the one that gradients train.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..runtime.errors import UserError
from .reading import CheckpointFile
from .timm_keys import (
    HF_SWIN,
    HF_VIT,
    MM_SWIN,
    MM_VIT,
    ORIGINAL_SWIN,
    SWIN,
    TIMM_SWIN,
    TIMM_VIT,
    VIT,
    Dialect,
    anchors,
)

TEACHER, STUDENT = "teacher", "student"
ROLES = {
    **dict.fromkeys(("teacher", "encoder_k", "momentum_encoder", "state_dict_ema", "model_ema"), TEACHER),
    **dict.fromkeys(("student", "encoder", "encoder_q", "base_encoder"), STUDENT),
}
WRAPPERS = ("module", "_orig_mod")  # of DDP and of torch.compile


@dataclass(frozen=True)
class Format:
    """Files that one project writes.

    Attributes:
        name: As ``--from`` takes it.
        files: What they are, for messages.
        dialects: Of their keys.
        prefixes: What may stand before the backbone's keys, wrappers and repetitions left out.
        marks: Pattern of a key that tells these files from others of the same dialect and prefix.
        containers: Top-level entries, one of which must hold the weights.
        published: The network whose figures its authors publish.
    """

    name: str
    files: str
    dialects: tuple[Dialect, ...]
    prefixes: tuple[str, ...] = ("",)
    marks: str = ""
    containers: tuple[str, ...] = ()
    published: str = TEACHER

    def fits(self, file: CheckpointFile, dialect: Dialect, prefix: str) -> bool:
        """Whether a backbone of that dialect below that prefix may come from this project."""
        return (
            dialect in self.dialects
            and plain(prefix) in self.prefixes
            and (not self.containers or bool(file.containers & set(self.containers)))
            and (not self.marks or any(re.search(self.marks, key) for key in file.tensors))
        )


_BOTH = ("teacher.backbone.", "student.backbone.")
FORMATS = (
    Format(
        "mst",
        "a checkpoint of this repository",
        (TIMM_VIT, TIMM_SWIN),
        (*_BOTH, "backbone.trunk."),  # of pretraining; of a detector or segmentor
        containers=("state_dict",),
    ),
    Format(
        "ibot",
        "iBOT's checkpoint or released backbone",
        (TIMM_VIT, ORIGINAL_SWIN),
        (*_BOTH, ""),
        r"masked_embed$|head\.last_layer2",
    ),
    Format(
        "esvit",
        "EsViT's checkpoint",
        (ORIGINAL_SWIN,),
        ("teacher.", "student."),
        r"head\.mlp|head_dense",
        (TEACHER, STUDENT),
    ),
    Format(
        "dino",
        "DINO's checkpoint or released backbone",
        (TIMM_VIT, ORIGINAL_SWIN),
        (*_BOTH, "teacher.", "student."),
        "",
        (TEACHER, STUDENT),
    ),
    Format(
        "moby",
        "MoBY's checkpoint",
        (TIMM_VIT, ORIGINAL_SWIN),
        ("encoder.", "encoder_k."),
        r"encoder_k\.|projector\.",
        published=STUDENT,
    ),
    Format("mae", "MAE's checkpoint", (TIMM_VIT,), marks=r"^(decoder_blocks|decoder_embed|mask_token)"),
    Format("mmdet", "mmdet's and mmseg's Swin", (MM_SWIN,), ("", "backbone.")),
    Format("mmseg", "mmseg's ViT or Swin", (MM_VIT, MM_SWIN), ("", "backbone.")),
    Format("huggingface", "transformers' ViTModel or SwinModel", (HF_VIT, HF_SWIN), ("", "vit.", "swin.")),
    Format(
        "detectron2",
        "detectron2's Swin or ViTDet's ViT",
        (TIMM_VIT, ORIGINAL_SWIN),
        ("backbone.bottom_up.", "backbone.net.", "bottom_up.", "net."),
    ),
    Format("swin", "the original Swin's file", (ORIGINAL_SWIN,)),
    Format(
        "timm", "timm's keys, as DINO's and MAE's released backbones have them too", (TIMM_VIT, TIMM_SWIN)
    ),
)
BY_NAME = {known.name: known for known in FORMATS}
# Where a project's LayerNorms have another epsilon than timm's network of that family (1e-5 in its Swin).
NORM_EPS = {("ibot", SWIN): 1e-6, ("esvit", SWIN): 1e-6}  # [code: iBOT, EsViT]
# Released backbones without a mark of their project: files of timm's keys, or of the original Swin's.
RELEASED = {TIMM_VIT: ("dino", "ibot", "mae"), ORIGINAL_SWIN: ("ibot",)}


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        format: Whose it is; the dialect's name where no project's prefix fits.
        dialect: Of its keys.
        prefix: Exactly what stands before the backbone's keys.
        role: ``teacher``, ``student``, or None in a file of one network.
        why: A sentence.
    """

    format: str
    dialect: Dialect
    prefix: str
    role: str | None
    why: str


def below(file: CheckpointFile, prefix: str) -> dict[str, Tensor]:
    """Tensors of a file that stand below a prefix, without it and without those of other backbones further below."""
    others = tuple(p for _, p in anchors(list(file.tensors)) if p != prefix and p.startswith(prefix))
    return {
        key[len(prefix) :]: value
        for key, value in file.tensors.items()
        if key.startswith(prefix) and not (others and key.startswith(others))
    }


def plain(prefix: str) -> str:
    """A prefix without DDP's and torch.compile's wrappers, and with a repeated part once."""
    parts: list[str] = []
    for part in prefix.rstrip(".").split("."):
        if part and part not in WRAPPERS and (not parts or part != parts[-1]):
            parts.append(part)
    return "".join(f"{part}." for part in parts)


def role_of(prefix: str) -> str | None:
    """The network that a prefix names."""
    return next((ROLES[part] for part in prefix.split(".") if part in ROLES), None)


def recognise(
    file: CheckpointFile, source: str = "auto", which: str | None = None, prefix: str | None = None
) -> Reading:
    """Find the backbone in a file.

    Args:
        file: As read.
        source: A format's name, or ``auto``.
        which: ``teacher`` or ``student``; None for the one whose figures the file's authors publish.
        prefix: Only a backbone right below this; None for any.

    Raises:
        UserError: None is there, several fit, it is not of ``source``'s format, or the wanted network is not there.
    """
    if source not in ("auto", *BY_NAME):
        raise UserError(f"'{source}' is not a known format. Give one of: auto, {', '.join(BY_NAME)}.")
    found = readings(file, source, prefix)
    if not found:
        listed = _listed(anchors(list(file.tensors)))
        raise UserError(
            f"{file.path} is not of format '{source}' ({BY_NAME[source].files}): found {listed}. Leave out --from to "
            "have it recognised."
        )
    if prefix is not None and which is None and len(found) == 1:
        return found[0]
    return _choose(file, found, which)


def readings(file: CheckpointFile, source: str = "auto", prefix: str | None = None) -> list[Reading]:
    """Every backbone in a file that fits ``source``; see :func:`recognise`."""
    everything = anchors(list(file.tensors))
    backbones = [found for found in everything if prefix is None or found[1] == prefix]
    if not backbones:
        heads = ", ".join(sorted({key.split(".")[0] for key in file.tensors})[:8]) or "no tensors"
        where = "" if prefix is None else f" right below the prefix '{prefix}'"
        raise UserError(
            f"{file.path} holds no ViT or Swin backbone of a known dialect{where} (found: "
            f"{_listed(everything) or heads}). Formats read: {', '.join(BY_NAME)}."
        )
    found = [_reading(file, dialect, where, source) for dialect, where in backbones]
    fitting = [reading for reading in found if reading is not None]
    if all(role_of(where) != TEACHER and "student" not in where for _, where in everything):
        # "encoder" of one network says nothing
        fitting = [replace(reading, role=None) for reading in fitting]
    return fitting


def _reading(file: CheckpointFile, dialect: Dialect, prefix: str, source: str) -> Reading | None:
    """The reading of one backbone, or None where it is not of the wanted format."""
    fitting = [known for known in FORMATS if known.fits(file, dialect, prefix)]
    marked = [known for known in fitting if known.marks]
    if source != "auto":
        known = BY_NAME[source]
        released = plain(prefix) == "" and source in RELEASED.get(dialect, ())
        fitting = [known] if known in fitting or released else []
        if not fitting:
            return None
    else:
        fitting = marked or fitting
        meanings = {(known.published, NORM_EPS.get((known.name, dialect.family))) for known in fitting}
        if len(meanings) > 1:
            names = " and ".join(known.name for known in fitting)
            raise UserError(
                f"{file.path} may be of {names}, which are read differently. Say which: python "
                f"tools/convert_checkpoint.py --from {fitting[0].name}"
            )
    name = fitting[0].name if fitting else dialect.name
    files = fitting[0].files if fitting else "a prefix of no known project"
    below = f"below '{prefix}'" if prefix else "without a prefix"
    return Reading(name, dialect, prefix, role_of(prefix), f"{dialect.name} names {below}: {files}")


def _choose(file: CheckpointFile, readings: Sequence[Reading], which: str | None) -> Reading:
    """The one wanted of several networks."""
    roles = {reading.role for reading in readings}
    wanted = which
    if wanted is None and roles != {None}:
        known = BY_NAME.get(readings[0].format)
        wanted = known.published if known else TEACHER
    if wanted is not None and roles == {None}:
        raise UserError(
            f"{file.path} holds one network and does not say whether it is a teacher or a student. Leave out --which."
        )
    if wanted is not None and None in roles and len(readings) > 1 and which is None:
        raise UserError(
            f"{file.path} holds several backbones: {_listed([(r.dialect, r.prefix) for r in readings])}. "
            "Choose one by its prefix: --prefix, or prefix in init_cfg; or in tools/convert_checkpoint.py with "
            "--which teacher (the averaged weights) or --which student."
        )
    if wanted == STUDENT and STUDENT not in roles and None in roles:
        chosen = [reading for reading in readings if reading.role is None]
    else:
        chosen = [reading for reading in readings if wanted is None or reading.role == wanted]
    if not chosen:
        other = TEACHER if wanted == STUDENT else STUDENT
        raise UserError(
            f"{file.path} holds a {other} only, no {wanted}. To take it, give its prefix (--prefix "
            f"{readings[0].prefix}), or convert it with --which {other}."
        )
    if len(chosen) > 1:
        raise UserError(
            f"{file.path} can be read in {len(chosen)} ways: {_listed([(r.dialect, r.prefix) for r in chosen])}. "
            "Choose one by its prefix: --prefix, or prefix in init_cfg."
        )
    return chosen[0]


def _listed(backbones: Sequence[tuple[Dialect, str]]) -> str:
    return "; ".join(f"{dialect.name} below '{prefix}'" for dialect, prefix in backbones[:4])


@dataclass(frozen=True)
class Target:
    """A file for others.

    Attributes:
        name: As ``--to`` takes it.
        layout: Dialect and prefix by family.
        container: Entry of a ``.pth`` file that holds the weights.
        remedy: What to do with a family that the library does not have.
    """

    name: str
    layout: dict[str, tuple[Dialect, str]]
    container: str = "state_dict"
    suffixes: tuple[str, ...] = (".pth",)
    remedy: str = ""


TARGETS = {
    target.name: target
    for target in (
        Target(
            "timm", {VIT: (TIMM_VIT, ""), SWIN: (TIMM_SWIN, "")}, suffixes=(".safetensors", ".pth")
        ),  # what our own configs read
        Target(
            "mmdet",  # its Swin reads only keys below 'backbone.'
            {SWIN: (MM_SWIN, "backbone.")},
            remedy="mmdet has no ViT backbone: use MSTVisionTransformer, which reads --to timm",
        ),
        Target("mmseg", {VIT: (MM_VIT, ""), SWIN: (MM_SWIN, "backbone.")}),
        Target(
            "detectron2",
            {VIT: (TIMM_VIT, "backbone.net."), SWIN: (ORIGINAL_SWIN, "backbone.bottom_up.")},
            container="model",
        ),
        Target("huggingface", {VIT: (HF_VIT, ""), SWIN: (HF_SWIN, "")}, suffixes=("",)),
    )
}
