"""Whose file is it, where in it is the backbone, and what does a file for others look like.

A format is a dialect and a prefix. ``teacher`` is the averaged network, ``student`` the one that gradients train.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..runtime.errors import UserError
from .choices import STUDENT, TEACHER
from .kinds import CONVERT, other_network
from .reading import CheckpointFile
from .storage import CONTAINERS, WRAPPED
from .timm_keys import (
    HF_DINOV2,
    HF_DINOV3,
    HF_SWIN,
    HF_VIT,
    MM_SWIN,
    MM_VIT,
    ORIGINAL_SWIN,
    OWN_DINOV2,
    OWN_DINOV3,
    SWIN,
    TIMM_SWIN,
    TIMM_VIT,
    VIT,
    Dialect,
    anchors,
)
from .vit_families import DINOV2, DINOV3, DISTILLED

ROLES = {
    # not MMEngine's ema_state_dict: beside it, state_dict is the averaged one [code: EMAHook]
    **dict.fromkeys(
        ("teacher", "encoder_k", "momentum_encoder", "state_dict_ema", "model_ema", "ema"), TEACHER
    ),
    **dict.fromkeys(("student", "encoder", "encoder_q", "base_encoder"), STUDENT),
}
WRAPPER = "module"  # of DDP


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
_WRAPPED_DINO = (
    *(*_BOTH, "teacher.", "student.", "backbone.", "model.", ""),
    *("state_dict_ema.", "model_ema.", "ema."),
)
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
    Format(
        "mocov3",
        "MoCo v3's checkpoint",
        (TIMM_VIT,),
        ("base_encoder.", "momentum_encoder."),
        published=STUDENT,  # its linear evaluation reads base_encoder [code: MoCo v3]
    ),
    Format(
        "dinov2",
        "DINOv2's checkpoint or released backbone, or its weights with timm's names",
        (TIMM_VIT, OWN_DINOV2),
        _WRAPPED_DINO,
        r"register_tokens$|\.ls1\.gamma$",
    ),
    Format(
        "dinov3",
        "DINOv3's checkpoint or released backbone, or its weights with timm's names",
        (TIMM_VIT, OWN_DINOV3),
        _WRAPPED_DINO,
        r"storage_tokens$|\.gamma_1$",
    ),
    Format("mae", "MAE's checkpoint", (TIMM_VIT,), marks=r"^(decoder_blocks|decoder_embed|mask_token)"),
    Format("mmdet", "mmdet's and mmseg's Swin", (MM_SWIN,), ("", "backbone.")),
    Format("mmseg", "mmseg's ViT or Swin", (MM_VIT, MM_SWIN), ("", "backbone.")),
    Format(
        "huggingface",
        "transformers' ViT, ViTMAE, DeiT, DINOv2, DINOv3 or Swin",
        (HF_VIT, HF_DINOV2, HF_DINOV3, HF_SWIN),
        ("", "vit.", "deit.", "dinov2.", "dinov2_with_registers.", "dinov3_vit.", "model.", "swin."),
    ),
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
HEADS = {("mocov3", 384): 12}  # of a ViT, where not one per 64 channels, by format and width [code: MoCo v3]
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
    """Tensors of a file that stand below a prefix, without it and without those of other backbones further below.

    What stands beside the dictionary whose name is left out is below no prefix but its own.
    """
    others = tuple(p for _, p in anchors(list(file.tensors)) if p != prefix and p.startswith(prefix))
    others += tuple(f"{name}." for name in file.apart if not prefix.startswith(f"{name}."))
    return {
        key[len(prefix) :]: value
        for key, value in file.tensors.items()
        if key.startswith(prefix) and key not in file.apart and not key.startswith(others)
    }


def plain(prefix: str) -> str:
    """A prefix without DDP's wrapper, and with a repeated part once."""
    parts: list[str] = []
    for part in prefix.rstrip(".").split("."):
        if part and part != WRAPPER and (not parts or part != parts[-1]):
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
        which: ``teacher`` or ``student``; None for the one whose figures the file's authors publish, where all of the
            file's networks are of one project.
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
    if not backbones and prefix is not None:  # as the file has it, with the names that are left out
        plain_prefix = WRAPPED.sub("", prefix)
        for name in file.containers.intersection(CONTAINERS):
            plain_prefix = plain_prefix.removeprefix(f"{name}.")
        backbones = [found for found in everything if found[1] == plain_prefix]
    if not backbones:
        other = other_network(file.tensors)
        heads = ", ".join(sorted({key.split(".")[0] for key in file.tensors})[:8]) or "no tensors"
        where = "" if prefix is None else f" right below the prefix '{prefix}'"
        raise UserError(
            f"{file.path} holds no ViT or Swin backbone of a known dialect{where} (names found: "
            f"{_listed(everything) or heads}). {f'It holds {other}. ' if other else ''}"
            f"Formats read: {', '.join(BY_NAME)}."
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
    # a pretraining of ours from a DINOv2 has that network's weights, and is ours
    marked = [known for known in fitting if known.name == "mst" or known.marks]
    marked = marked if any(known.marks for known in marked) else []
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
    """The one wanted of several networks: as asked, or as the file's authors evaluate, and no other."""
    roles = {reading.role for reading in readings}
    formats = {reading.format for reading in readings}
    known = BY_NAME.get(formats.pop()) if len(formats) == 1 else None
    if roles == {None}:
        if len(readings) > 1:
            raise UserError(_question(file, readings))
        if which is not None:
            raise UserError(
                f"{file.path} holds one network and does not say whether it is a teacher or a student. Leave out "
                "--which."
            )
        return readings[0]
    if which is None and len(readings) > 1 and (known is None or None in roles):
        raise UserError(_question(file, readings))
    wanted = which or (known.published if known else TEACHER)
    role = None if wanted == STUDENT and STUDENT not in roles and None in roles else wanted
    chosen = [reading for reading in readings if reading.role == role]
    if not chosen:
        other = TEACHER if wanted == STUDENT else STUDENT
        raise UserError(
            f"{file.path} holds a {other} only, no {wanted}. To take it, give its prefix (--prefix "
            f"{readings[0].prefix}), or convert it with --which {other}."
        )
    if len(chosen) > 1:
        raise UserError(_question(file, chosen))
    why = f"; of {len(readings)} networks the one that its authors evaluate"
    return chosen[0] if which or len(readings) == 1 else replace(chosen[0], why=chosen[0].why + why)


def _question(file: CheckpointFile, readings: Sequence[Reading]) -> str:
    """Which network is meant? With what to type in every tool."""
    prefix = readings[-1].prefix or "''"
    roles = {reading.role for reading in readings}
    by_role = (
        " (there also --which teacher, the averaged weights, or --which student)" if TEACHER in roles else ""
    )
    return (
        f"{file.path} holds {len(readings)} networks: {_listed([(r.dialect, r.prefix) for r in readings])}. Choose one "
        f"by its prefix, e.g. --prefix {prefix} in tools/convert_checkpoint.py{by_role} and the evaluations, "
        f"prefix={readings[-1].prefix!r} in init_cfg; for --init-from, write it first: {CONVERT} --prefix {prefix}"
    )


def _listed(backbones: Sequence[tuple[Dialect, str]]) -> str:
    return "; ".join(f"{dialect.name} below '{prefix}'" for dialect, prefix in backbones[:4])


@dataclass(frozen=True)
class Target:
    """A file for others.

    Attributes:
        name: As ``--to`` takes it.
        layout: Dialect and prefix by family.
        container: Entry of a ``.pth`` file that holds the weights; empty where they are the file.
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
            "timm",  # what our own configs read
            {**dict.fromkeys((VIT, DINOV2, DINOV3, DISTILLED), (TIMM_VIT, "")), SWIN: (TIMM_SWIN, "")},
            suffixes=(".safetensors", ".pth"),
        ),
        Target(
            "mmdet",  # its Swin reads only keys below 'backbone.'
            {SWIN: (MM_SWIN, "backbone.")},
            remedy="mmdet has no ViT backbone: use MSTVisionTransformer, which reads --to timm",
        ),
        Target(
            "mmseg",
            {VIT: (MM_VIT, ""), SWIN: (MM_SWIN, "backbone.")},
            remedy="mmseg has no such backbone: use MSTVisionTransformer, which reads --to timm",
        ),
        Target(
            "detectron2",
            {VIT: (TIMM_VIT, "backbone.net."), SWIN: (ORIGINAL_SWIN, "backbone.bottom_up.")},
            container="model",
            remedy="detectron2 has no such backbone: use MSTVisionTransformer, which reads --to timm",
        ),
        Target(
            "huggingface",
            {
                **dict.fromkeys((VIT, DISTILLED), (HF_VIT, "")),
                DINOV2: (HF_DINOV2, ""),
                DINOV3: (HF_DINOV3, ""),
                SWIN: (HF_SWIN, ""),
            },
            suffixes=("",),
        ),
        Target(
            "dinov2",
            {DINOV2: (OWN_DINOV2, "")},
            container="",
            remedy="DINOv2's own format has that network alone: give --to timm or --to huggingface",
        ),
        Target(
            "dinov3",
            {DINOV3: (OWN_DINOV3, "")},
            container="",
            remedy="DINOv3's own format has that network alone: give --to timm or --to huggingface",
        ),
    )
}
