"""A checkpoint file as a flat dictionary of tensors, with what it says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..runtime.errors import UserError
from ..runtime.json_text import parse_json
from .kinds import folder_kind
from .storage import WRAPPED, entries, flat_tensors, load_checkpoint

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of a Hugging Face folder
INDEXES = tuple(f"{name}.index.json" for name in WEIGHT_FILES)  # of one in several files
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")  # of checkpoints in another folder
SHOWN = 3
CONFIG = "config.json"


@dataclass
class CheckpointFile:
    """Everything in a file that a conversion reads.

    Attributes:
        path: The file.
        tensors: By key; an entry of a nested dictionary has the dictionary's name before it, unless that is
            ``state_dict`` or ``model``.
        containers: Names of the top-level dictionaries that held tensors.
        meta: MMEngine's ``meta``, or the metadata of a ``.safetensors`` file.
        config: ``config.json`` of a Hugging Face folder.
        others: Top-level entries without tensors.
        apart: Top-level entries beside the dictionary whose name was left out; none of its network.
        odd: The type of every entry that is not a tensor, by name.
    """

    path: Path
    tensors: dict[str, Tensor]
    containers: set[str] = field(default_factory=set)
    meta: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    apart: tuple[str, ...] = ()
    odd: Mapping[str, str] = field(default_factory=dict)


def epoch_of(file: CheckpointFile) -> str | None:
    """Passes over the data: of our pretraining the images of its steps, of others as they say."""
    sampler, run = file.others.get("sampler"), file.meta.get("run")
    if (
        isinstance(run, Mapping)
        and (run.get("config", {}).get("train_cfg") or {}).get("type") == "PretrainLoop"
    ):
        return f"{file.meta['iter'] * run['batch'] / run['data']['images']:g}"
    if isinstance(sampler, Mapping) and {"position", "size"} <= set(sampler):
        return f"{sampler['position'] / max(sampler['size'], 1):g}"
    said = file.meta.get("epoch", file.others.get("epoch"))
    return None if said is None else str(said)


def iteration_of(file: CheckpointFile) -> str | None:
    """Optimizer steps, where the file says."""
    said = {**file.others, **file.meta}
    found = said.get("iter", said.get("iteration"))
    return None if found is None else str(found)


def weight_file(path: str | Path) -> Path:
    """The file of weights in a folder: a Hugging Face one needs its ``config.json``, any other holds one checkpoint.

    Raises:
        UserError: There is none, or several.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = [path / name for name in (*WEIGHT_FILES, *INDEXES) if (path / name).is_file()]
    if not found:
        if kind := folder_kind(path):
            raise UserError(f"{path} {kind}")
        files = sorted(one for one in path.iterdir() if one.suffix in SUFFIXES and one.is_file())
        if len(files) == 1:
            return files[0]
        if files:
            names = ", ".join(one.name for one in files[:SHOWN]) + (", ..." if len(files) > SHOWN else "")
            raise UserError(f"{path} has {len(files)} checkpoints: {names}. Name one: {files[0]}")
        raise UserError(
            f"{path} is a folder without {' or '.join(WEIGHT_FILES)}. Name a checkpoint, or a folder of "
            "transformers' save_pretrained."
        )
    if not (path / CONFIG).is_file():
        raise UserError(f"{path / CONFIG} is not there. A Hugging Face folder needs it beside the weights.")
    return found[0]


def read_file(path: str | Path, trusted: bool = False) -> CheckpointFile:
    """Read a checkpoint, or the weights and ``config.json`` of a Hugging Face folder.

    Raises:
        UserError: See :func:`load_checkpoint`; or it holds no tensors.
    """
    path = weight_file(path)
    beside = path.with_name(CONFIG)
    of_folder = path.name in (*WEIGHT_FILES, *INDEXES)
    config = _read_config(beside) if of_folder and beside.is_file() else None
    if shard := re.search(r"-(\d{5})-of-(?!00001)\d{5}\.(safetensors|bin)$", path.name):
        raise UserError(
            f"{path} is only part {int(shard[1])} of a checkpoint in several files. Give their folder, or the "
            "*.index.json in it."
        )
    if path.name.endswith(".index.json"):
        loaded = load_parts(path, trusted)
    else:
        loaded = load_checkpoint(path, trusted=trusted)
    tensors, containers, bare = flat_tensors(loaded)
    if not tensors:
        raise UserError(
            f"{path} holds no tensors (found: {', '.join(map(str, loaded)) or 'nothing'}). "
            + (
                "It is the state of an optimizer, without weights. Give the checkpoint beside it."
                if {"param_groups", "optimizer", "optimizer_states", "optimizer_state_dict"} & set(loaded)
                else "Give a file with the weights of a model."
            )
        )
    odd = {
        WRAPPED.sub("", name.removeprefix(f"{bare}.")): type(value).__name__
        for name, value in entries(loaded)
        if not isinstance(value, Tensor)
    }
    apart = () if bare is None else tuple(str(key) for key in loaded if key != bare)
    rest = {str(k): v for k, v in loaded.items() if k not in containers and not isinstance(v, Tensor)}
    found = rest.pop("meta", None)
    meta = dict(found) if isinstance(found, Mapping) else {}
    if (
        config is not None and "architecture" in config and "model_type" not in config
    ):  # timm's, not transformers'
        said = {
            "architecture": config["architecture"],
            "model_args": json.dumps(config.get("model_args") or {}),
        }
        meta, config = {**said, **meta}, None
    return CheckpointFile(path, tensors, containers, meta, config, rest, apart, odd)


def load_parts(index: Path, trusted: bool = False) -> dict[str, Any]:
    """A checkpoint in several files, as transformers writes one: every weight of its index, each from its file.

    Args:
        index: ``*.index.json``, whose ``weight_map`` names the file of each weight.
        trusted: See :func:`load_checkpoint`.

    Raises:
        UserError: The index makes no sense, a file is missing or named outside the folder, or lacks a weight.
    """
    places = _read_config(index).get("weight_map")
    if (
        not isinstance(places, dict)
        or not places
        or any(not isinstance(place, str) or Path(place).name != place for place in places.values())
    ):
        raise UserError(
            f"{index} does not name a file beside it for every weight (weight_map). Download the folder again."
        )
    parts = sorted(set(places.values()))
    absent = [part for part in parts if not (index.parent / part).is_file()]
    if absent:
        raise UserError(
            f"{index} names {len(parts)} files, and {len(absent)} are not there (first: {absent[0]}). Download them "
            "into that folder."
        )
    weights: dict[str, Any] = {}
    meta: Mapping[str, Any] = {}
    for part in parts:
        content = load_checkpoint(index.parent / part, trusted=trusted)
        if part.endswith(".safetensors"):
            content, meta = content["state_dict"], content["meta"]
        weights |= {str(name): value for name, value in content.items() if places.get(str(name)) == part}
    if lacking := sorted(set(places) - set(weights)):
        raise UserError(
            f"{index} names {len(lacking)} weights that its files lack (first: {lacking[0]}): they are of different "
            "checkpoints. Download the folder again."
        )
    return {"state_dict": weights, "meta": dict(meta)}


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = parse_json(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}, no object")
        return config
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}). Copy it again.") from error
