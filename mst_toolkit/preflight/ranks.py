"""Several processes: they meet, add up numbers, and have the same code, versions, config and data."""

from __future__ import annotations

import hashlib
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from mmengine.config import Config
from torch import distributed

from mst_pretrain.runtime.distributed import rank, world_size
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training import meeting

from ..findings import FAULT, OK, Diagnosis, Line

PACKAGES = ("mst_pretrain", "mst_toolkit", "mst_transfer")
DIGEST = re.compile("[0-9a-f]{32,}")
FLOATS = 1_000_000  # of the collective: 4 MB, as a bucket of gradients


def meet(launcher: str) -> Iterator[Line]:
    """Join the processes of a launcher and add up a tensor over them; nothing for one process.

    Raises:
        UserError: They do not find each other, or the sum is wrong.
    """
    if launcher == "none":
        return
    meeting.meet(Config(dict(launcher=launcher, env_cfg=dict())))
    on_gpu = torch.cuda.is_available()
    ones = torch.ones(FLOATS, device="cuda" if on_gpu else "cpu")
    try:
        distributed.all_reduce(ones.clone())  # the first one makes connections
        began = time.perf_counter()
        distributed.all_reduce(ones)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    except RuntimeError as error:
        raise UserError(
            f"the processes met, but cannot add up a tensor ({str(error).splitlines()[0]}). Check the network between "
            "the machines and NCCL_SOCKET_IFNAME; NCCL_DEBUG=INFO says more"
        ) from error
    if float(ones[0]) != world_size() or float(ones[-1]) != world_size():
        raise UserError(
            f"{world_size()} processes added up ones to {float(ones[0]):g}: the network loses data."
        )
    text = f"{world_size()} processes ({distributed.get_backend()}): 4 MB are added up in {1000 * seconds:.1f} ms"
    yield OK, text


def code_digests() -> dict[str, str]:
    """A digest of every Python file of our packages, by its name below their folder."""
    root = Path(__file__).resolve().parents[2]
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def identity(config: str, data: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in all processes of a run.

    Args:
        config: The whole config as text.
        data: See :class:`mst_toolkit.preflight.sample.Sampled`.
    """
    return {
        "versions": {
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
        "code": code_digests(),
        "config": hashlib.sha256(config.encode()).hexdigest(),
        "data": data,
    }


def differences(identities: list[dict[str, Any]]) -> Iterator[Line]:
    """One fault for each way in which a process is unlike the first."""
    if len(identities) < 2:
        return
    first, equal = identities[0], True
    for number, other in enumerate(identities[1:], start=1):
        for kind, remedy in (
            ("versions", "Install the same environment on all machines"),
            ("code", "Install the same revision on all machines, or start all from one shared folder"),
            ("config", "Give all processes the same file and the same --cfg-options"),
            ("data", "Copy the data again to the machine that differs, or name one shared folder"),
        ):
            if first[kind] == other[kind]:
                continue
            equal = False
            yield (
                FAULT,
                f"process {number} has other {kind} than process 0{told(first[kind], other[kind])}. {remedy}",
            )
    if equal:
        yield OK, f"{len(identities)} processes have the same versions, code, config and data"


def told(one: Any, other: Any) -> str:
    """Where two values differ, in words."""
    if not isinstance(one, dict):
        return ""
    names = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    pairs = []
    for name in names[:3]:
        before, after = (str(values.get(name, "missing")) for values in (one, other))
        pairs.append(
            name if DIGEST.fullmatch(before) or DIGEST.fullmatch(after) else f"{name} {before} and {after}"
        )
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" ({', '.join(pairs)}{more})"


def gather(value: Any) -> list[Any]:
    """The values of all processes, in their order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def share(diagnosis: Diagnosis, since: int) -> None:
    """Every process learns the warnings and faults of the others since a line; the first prints those that are new.

    Args:
        diagnosis: Of this process.
        since: The number of lines that are shared already.
    """
    own = [line for line in diagnosis.lines[since:] if line[1] != OK]
    known = {line[1:] for line in own} if rank() == 0 else set()
    for number, lines in enumerate(gather(own)):
        if number == rank():
            continue
        for section, kind, text in lines:
            if (kind, text) not in known:
                known.add((kind, text))
                diagnosis.add(section, kind, f"process {number}: {text}")
