"""The one safe loader of checkpoints, and what writes them, atomically."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shlex
import struct
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..runtime.atomic import replacing
from ..runtime.errors import UserError
from ..runtime.run_files import newest_checkpoint
from .bounds import asks_too_much, refuse_absurd, refuse_damaged_archive
from .kinds import is_tar, kind_of, text_kind
from .numpy_values import safe_numpy

INITIAL = "initial.pth"  # the weights before training: the random start of every comparison
# All that torch.load and safetensors raised on 12,000 truncated and altered files of four formats
READER_ERRORS = (
    pickle.UnpicklingError,
    safetensors.SafetensorError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    LookupError,
    AssertionError,
    RuntimeError,
)


class UnreadHistory:
    """Stands for MMEngine's loss history in a process that has not imported MMEngine: its values, no statistics."""

    min = max = mean = current = None


def _history() -> type:
    """MMEngine's class of loss histories, which a training continues, where this process works with MMEngine."""
    engine = sys.modules.get("mmengine.logging.history_buffer")
    return UnreadHistory if engine is None else engine.HistoryBuffer


def _history_statistic(owner: type, name: str) -> Any:
    """Stand in for ``getattr`` in MMEngine's pickled loss histories: their four statistics, nothing else."""
    if owner is not _history() or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"refused getattr({owner!r}, {name!r})")
    return getattr(owner, name)


def _safe_globals() -> list[Any]:
    """The allow-list: what checkpoints hold beside tensors and can do no harm.

    MMEngine's: loss histories, which are numpy arrays with a name. DINO's, iBOT's, MAE's and timm's: their arguments.
    Swin's and MoBY's: their configuration, a dictionary of yacs, which is neither needed nor run.
    """
    stand_ins = [
        (_history(), "mmengine.logging.history_buffer.HistoryBuffer"),
        (_history_statistic, "builtins.getattr"),
        (OrderedDict, "yacs.config.CfgNode"),
    ]
    return [argparse.Namespace, *stand_ins, *safe_numpy()]


def load_checkpoint(
    path: str | Path, map_location: str | torch.device = "cpu", trusted: bool = False
) -> dict[str, Any]:
    """Read a ``.pth`` or ``.safetensors`` file without running code from it.

    Args:
        path: Local file. ``.safetensors`` yields ``{"state_dict": ..., "meta": its metadata}``.
        map_location: Device of the tensors.
        trusted: Run the code in the file: only where the user trusts its author.

    Raises:
        UserError: The file is missing, empty, truncated, of another kind, or holds objects other than weights.
    """
    path = Path(path)
    refuse_folder(path)
    if not path.is_file():
        raise UserError(
            f"checkpoint not found: {path}. Give the path of an existing .pth or .safetensors file."
        )
    with open(path, "rb") as stream:
        start = stream.read(512)
    if not start:
        raise UserError(f"{path} is empty: copy it again, or use the previous checkpoint of the run.")
    if text := text_kind(path):  # torch and safetensors write no text
        raise UserError(f"{path} {text}")
    if is_tar(start):
        raise UserError(f"{path} {kind_of(path, 'a tar archive')}")
    if start.startswith(b"PK\x03\x04") and not trusted:
        refuse_damaged_archive(path)
    try:
        if start[8:9] == b"{":  # safetensors, under whatever name
            with safetensors.safe_open(path, framework="pt", device=str(map_location)) as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping
                return {"state_dict": state, "meta": file.metadata() or {}}
        # torch.load goes by the suffix of a name, not of a stream
        with open(path, "rb") as stream, torch.serialization.safe_globals(_safe_globals()):
            loaded = torch.load(stream, map_location=map_location, weights_only=not trusted)
    except READER_ERRORS as error:
        if asks_too_much(error, path.stat().st_size):
            raise UserError(
                f"{path} asks for more memory than there is, and has {path.stat().st_size:,} bytes: it is damaged, or "
                "was made for that. Copy it again, or free some memory."
            ) from error
        if _is_about_the_machine(error):
            raise
        if isinstance(error, ImportError | AttributeError) and trusted:
            raise UserError(
                f"{path} cannot be opened: {error}. Install the package it was made with, in that version, or ask for "
                "a .safetensors file."
            ) from error
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(_refusal(path, found[1])) from error
        said = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error)
        reason = said.splitlines()[0] if said else type(error).__name__
        raise UserError(f"{path} {kind_of(path, reason)}") from error
    if isinstance(loaded, nn.Module):  # only of a trusted file
        return {"state_dict": loaded.state_dict()}
    if not isinstance(loaded, dict):
        raise UserError(
            f"{path} holds a {type(loaded).__name__}, not a checkpoint dictionary. Save one from the model that it "
            "belongs to: torch.save(model.state_dict(), FILE)."
        )
    refuse_absurd(path, loaded)
    return loaded


def refuse_folder(path: Path) -> None:
    """Raise a UserError where a path of a checkpoint is that of a folder; it names a run's newest checkpoint."""
    if path.is_dir():
        newest = newest_checkpoint(path)
        what = str(newest) if newest.is_file() else "the path of a .pth or .safetensors file"
        raise UserError(f"{path} is a folder, not a checkpoint. Give {what}.")


def use_safe_loading() -> None:
    """From here on, MMEngine reads checkpoints with :func:`load_checkpoint`, also for mmdet's own models.

    MMEngine's own reader, where reading weights alone fails, reads the file a second time and runs the code in it; a
    file that it downloads it opens so at once. Every tool of ours that trains or tests calls this first.
    """
    from mmengine.runner import CheckpointLoader, checkpoint

    from .addresses import OTHER_SCHEMES, load_from_elsewhere, load_from_url

    def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
        return load_checkpoint(Path(filename).expanduser(), map_location or "cpu")

    CheckpointLoader.register_scheme(prefixes="", loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=OTHER_SCHEMES, loader=load_from_elsewhere, force=True)
    checkpoint.load_url = load_from_url  # of http(s), torchvision and OpenMMLab's names


def _is_about_the_machine(error: Exception) -> bool:
    """RuntimeErrors that say nothing of the file: no memory is left, here or on the GPU, or Python's stack is full."""
    return isinstance(error, torch.OutOfMemoryError | RecursionError) or "allocate memory" in str(error)


def _refusal(path: Path, what: str) -> str:
    if what.startswith("torch.distributed."):
        return (
            f"{path} holds one process's share of a network ({what}), not the whole. Gather it where it was trained, "
            "with torch.distributed.checkpoint.state_dict.get_model_state_dict and full_state_dict=True, and save that."
        )
    return (
        f"{path} holds more than weights (the object {what}) and was not opened further: loading it could run code, "
        "and nothing was loaded in another way. Ask its author for a .safetensors file, or, only where you trust the "
        f"file, take its weights out: python tools/convert_checkpoint.py {shlex.quote(str(path))} NEW.safetensors "
        "--trusted"
    )


CONTAINERS = ("state_dict", "model")  # dictionaries whose name says nothing
# Parts of names by torch.compile, FSDP, activation checkpointing and Lightning Fabric, wherever they stand in a name
WRAPPED = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|_forward_module)\."
)


def entries(content: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries by dotted name; a module counts as the dictionary of its weights.

    An optimizer's state, whose keys are numbers, is left out.
    """
    for key, value in content.items():
        inner = value.state_dict() if isinstance(value, nn.Module) else value
        if not isinstance(inner, Mapping):
            yield f"{before}{key}", inner
        elif all(isinstance(name, str) for name in inner):
            yield from entries(inner, f"{before}{key}.")


def flat_tensors(loaded: Mapping[str, Any]) -> tuple[dict[str, Tensor], set[str], str | None]:
    """All tensors of a checkpoint by one name each, the top-level dictionaries that held them, and the bare one.

    A dictionary's name comes before its keys (DINO's ``teacher.backbone....``), unless it is ``state_dict`` or
    ``model`` [code: MMEngine, timm, MoBY, MAE]; of both in one file only the first goes without, the bare one, and none
    where two names would become one. The names of :data:`WRAPPED` are left out unless two names would become one.
    """
    tensors: dict[str, Tensor] = {}
    containers: list[str] = []
    for key, value in loaded.items():
        found = {name: v.detach() for name, v in entries({key: value}) if isinstance(v, Tensor)}
        containers += [str(key)] if found and not isinstance(value, Tensor) else []
        tensors |= found
    bare = next((name for name in containers if name in CONTAINERS), None)
    if bare is not None:
        renamed = {name.removeprefix(f"{bare}."): value for name, value in tensors.items()}
        bare = bare if len(renamed) == len(tensors) else None
        tensors = renamed if bare else tensors
    renamed = {WRAPPED.sub("", name): value for name, value in tensors.items()}
    return (renamed if len(renamed) == len(tensors) else tensors), set(containers), bare


def refuse_broken(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Raise a UserError where weights read from ``path`` have a NaN or an infinite value; it names the first."""
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise UserError(
            f"{path} has values that are not finite in {len(broken)} weights (first: {broken[0]}), as a training that "
            "diverged writes them. Nothing was loaded. Use an earlier checkpoint of the run."
        )


def refuse_odd(path: str | Path, odd: Mapping[str, str]) -> None:
    """Raise a UserError where weights read from ``path`` are not tensors: names, and the type of each."""
    if odd:
        name, kind = next(iter(odd.items()))
        raise UserError(
            f"{path} has {len(odd)} weights that are not tensors (first: {name} is a {kind}). Nothing was loaded. Save "
            "the model again: torch.save(model.state_dict(), FILE)."
        )


def owned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values on the CPU, contiguous, none a view of more than itself or of another's memory."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() > tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[key] = tensor
    return result


def save_atomic(obj: Any, path: str | Path) -> None:
    """Write with ``torch.save`` so that ``path`` is at every moment the old file or the whole new one."""
    with replacing(path) as part, open(part, "wb") as stream:  # a name would end up inside the file
        try:
            torch.save(obj, stream)
        except RuntimeError as error:  # torch's own word for a full disk
            raise OSError(str(error).splitlines()[0]) from error


def save_safetensors(
    state: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as ``.safetensors``, atomically; the same content gives the same bytes."""
    content = memoryview(safetensors.torch.save(owned(state), metadata=metadata))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8 : 8 + length]))
    if metadata:  # safetensors writes it in an order that changes from call to call
        header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as part, open(part, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.write(content[8 + length :])
