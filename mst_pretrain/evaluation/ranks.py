"""Evaluation in several processes: who does which rows, how rows come together again, who speaks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from ..runtime.atomic import replacing, write_json
from ..runtime.distributed import rank as rank
from ..runtime.distributed import world_size as world_size
from ..training.processes import launcher_of
from .tool import speaks as speaks


def start() -> torch.device:
    """Join torchrun's process group, if there is one, and choose this process's device.

    Tensors on the CPU travel by gloo, those on a GPU by NCCL. Raises a UserError as :func:`launcher_of` does.
    """
    launcher, gpu = launcher_of("none"), torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if gpu:
        torch.cuda.set_device(local)
    if launcher == "pytorch" and not dist.is_initialized():
        # One rank may decode a large folder's last images long after the others are done.
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=timedelta(hours=2))
    return torch.device("cuda", local) if gpu else torch.device("cpu")


def share(count: int) -> range:
    """The rows of ``count`` that this process does: every ``world_size``-th, no row twice."""
    return range(rank(), count, world_size())


def gather_rows(rows: Tensor, count: int) -> Tensor:
    """Put the processes' rows of :func:`share` together, in order, in every process.

    Args:
        rows: [len(share(count)), ...] on the CPU, of one dtype and row shape everywhere.
        count: Rows of all processes.

    Returns:
        [count, ...].
    """
    if world_size() == 1:
        return rows  # all of them, and a million rows are not copied
    whole = rows.new_zeros(count, *rows.shape[1:])
    whole[rank() :: world_size()] = rows
    sum_over_ranks([whole])
    return whole


def sum_over_ranks(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def publish(result: dict[str, Any], out: str | Path | None) -> None:
    """Write ``result`` to ``out``, whole or not at all, and print it as one line, in the first process only."""
    if rank() > 0:
        return
    if out is not None:
        write_json(result, out)
    print(json.dumps(result), flush=True)


def save_arrays(arrays: dict[str, Any], path: str) -> None:
    """``numpy.savez``, but ``path`` is at every moment the whole old file or the whole new one."""
    with replacing(path if path.endswith(".npz") else f"{path}.npz") as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)
