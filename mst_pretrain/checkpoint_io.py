"""The one safe loader and the one atomic writer. Everything that touches a checkpoint goes through here."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import math
import os
import pickle
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from .errors import UserError

POSITION_EMBEDDING = "pos_embed"
PATCH_EMBEDDING = "patch_embed.proj.weight"
# A classifier and the tables that timm once stored; any other weight left over means another architecture.
MAY_BE_LEFT = re.compile(r"head\.|head_dist\.|fc_norm\.|.*(relative_position_index|attn_mask)$")
LATEST = "latest.pth"
INITIAL = "initial.pth"  # the weights before training: the random start of every comparison


def _history_statistic(owner: type, name: str) -> Any:
    """Stand in for ``getattr`` in MMEngine's pickled loss histories: their four statistics, nothing else."""
    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"refused getattr({owner!r}, {name!r})")
    return getattr(owner, name)


def _safe_globals() -> list[Any]:
    """The allow-list: what checkpoints hold beside tensors and can do no harm.

    MMEngine's: loss histories, which are numpy arrays with a name. DINO's, iBOT's, MAE's and timm's: their arguments.
    Swin's and MoBY's: their configuration, a dictionary of yacs, which is neither needed nor run.
    """
    multiarray: Any = importlib.import_module("numpy._core.multiarray")
    dtypes = [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "uint32", "bool")]
    numpy_globals = [multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype, *dtypes]
    stand_ins = [(_history_statistic, "builtins.getattr"), (OrderedDict, "yacs.config.CfgNode")]
    return [argparse.Namespace, HistoryBuffer, *stand_ins, *numpy_globals]


def load_checkpoint(
    path: str | Path, map_location: str | torch.device = "cpu", trusted: bool = False
) -> dict[str, Any]:
    """Read a ``.pth`` or ``.safetensors`` file without running code from it.

    Args:
        path: Local file. ``.safetensors`` yields ``{"state_dict": ..., "meta": its metadata}``.
        map_location: Device of the tensors.
        trusted: Unpickle anything, which can run code: only for a file whose author the user trusts.

    Raises:
        UserError: The file is missing, empty, truncated, no checkpoint, or holds objects other than weights.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "checkpoint not found"
        raise UserError(f"{what}: {path}. Give the path of an existing .pth or .safetensors file.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: copy it again, or use the previous checkpoint of the run.")
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path, map_location)
        with torch.serialization.safe_globals(_safe_globals()):
            loaded = torch.load(path, map_location=map_location, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, str(error))) from error
    except (ImportError, AttributeError) as error:  # trusted, but made with a package that is not here
        raise UserError(
            f"{path} cannot be opened: {error}. Install the package it was made with, or ask for a .safetensors file."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint ({reason}). It is probably truncated: copy it again, "
            "or use the previous checkpoint of the run."
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(
            f"{path} holds a {type(loaded).__name__}, not a checkpoint dictionary. Use a .pth file."
        )
    return loaded


def _load_safetensors(path: Path, device: str | torch.device) -> dict[str, Any]:
    """Tensors and metadata."""
    with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
        return {
            "state_dict": {key: file.get_tensor(key) for key in file.keys()},  # noqa: SIM118, no mapping
            "meta": file.metadata() or {},
        }


def _refusal(path: Path, reason: str) -> str:
    """Why a pickle was not opened, from torch's message."""
    found = re.search(r"(?:Unsupported global: )?GLOBAL (\S+)", reason)
    if found is None and re.search(r"invalid load key|Unsupported operand", reason):
        with open(path, "rb") as stream:
            start = stream.read(16)
        return (
            f"{path} is no checkpoint: it begins with {start!r}. It may be a web page or a pointer saved under this "
            "name; download the file itself."
        )
    inner = reason.partition("WeightsUnpickler error:")[2].strip() or reason
    what = f"the object {found.group(1)}" if found else inner.splitlines()[0]
    return (
        f"{path} holds more than weights ({what}) and was not opened further: loading it could run code, and nothing "
        "was loaded in another way. Ask its author for a .safetensors file, or, only where you trust the file, take "
        f"its weights out: python tools/convert_checkpoint.py {path} NEW.safetensors --trusted"
    )


WRAPPERS = ("state_dict", "model")  # dictionaries whose name says nothing


def flat_tensors(loaded: Mapping[str, Any]) -> tuple[dict[str, Tensor], set[str]]:
    """All tensors of a checkpoint by one name each, and the dictionaries that held them.

    A dictionary's name comes before its keys (DINO's ``teacher.backbone....``), unless it is ``state_dict`` or
    ``model`` [code: MMEngine, timm, MoBY, MAE]; of both in one file only the first goes without.
    """
    tensors: dict[str, Tensor] = {}
    containers: set[str] = set()
    for key, value in loaded.items():
        if isinstance(value, Tensor):
            tensors[str(key)] = value.detach()
        elif isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values()):
            bare = key in WRAPPERS and not containers & set(WRAPPERS)
            containers.add(str(key))
            before = "" if bare else f"{key}."
            tensors |= {f"{before}{k}": v.detach() for k, v in value.items() if isinstance(v, Tensor)}
    return tensors, containers


def _tensors(path: str | Path) -> dict[str, Tensor]:
    return flat_tensors(load_checkpoint(path))[0]


def backbone_prefix(path: str | Path) -> str:
    """What stands before a backbone's timm keys in a checkpoint; of ours, the teacher's.

    Raises:
        UserError: The file cannot be read, holds no patch embedding, or several and none is a teacher's.
    """
    keys = list(_tensors(path))
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


def load_state_dict(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a checkpoint whose keys start with ``prefix``, the prefix removed.

    Raises:
        UserError: The file cannot be read, or no key starts with ``prefix``.
    """
    tensors = _tensors(path)
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
    module: nn.Module, path: str | Path, prefix: str = "", skip: Sequence[str] = (), antialias: bool = True
) -> LoadReport:
    """Load every weight of ``module`` from a checkpoint, or fail.

    A position embedding of another grid is resized in float32 to the module's explicit (height, width).

    Args:
        module: Receives the weights; a timm trunk when the checkpoint is ours.
        path: Checkpoint file.
        prefix: Part of the source keys before the module's own names, e.g. ``teacher.backbone.``.
        skip: Patterns (``re.match``) of module keys that need no source, e.g. ``head\\.``.
        antialias: Bicubic resizing as timm's; False as DINO's and mmseg's.

    Raises:
        UserError: A weight has no source or another shape; the module is then unchanged.
    """
    source = load_state_dict(path, prefix)
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
    module.load_state_dict(state, strict=False)
    return report


def refuse_leftovers(report: LoadReport, path: str | Path, remedy: str) -> None:
    """A file may hold a classifier beside the backbone, but no block that the backbone lacks.

    Args:
        report: Of :func:`load_backbone`.
        path: The file.
        remedy: A sentence.

    Raises:
        UserError: A weight was left over.
    """
    left = [key for key in report.unexpected if not MAY_BE_LEFT.match(key)]
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


def file_sha256(path: str | Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file in the folder of ``path`` that takes its place, on disk, when the block ends without an error.

    ``path`` is at every moment the whole old file, the whole new one, or not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    yield part
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on disk too
    finally:
        os.close(folder)


def save_atomic(obj: Any, path: str | Path) -> None:
    """Write with ``torch.save`` so that ``path`` is at every moment the old file or the whole new one."""
    with replacing(path) as part, open(part, "wb") as stream:  # a name would end up inside the file
        torch.save(obj, stream)


def link_atomic(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source`` at once, a copy where there are no hard links."""
    with replacing(target) as part:
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, part)


def save_safetensors(
    state: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as ``.safetensors``, atomically."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with replacing(path) as part:
        safetensors.torch.save_file(tensors, part, metadata=metadata)


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
