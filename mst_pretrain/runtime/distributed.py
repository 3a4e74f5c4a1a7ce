"""Which of the processes this is, told by torch alone: what reads checkpoints works without MMEngine."""

from __future__ import annotations

from torch import distributed


def rank() -> int:
    """Number of this process, from 0; 0 where there is no process group."""
    return distributed.get_rank() if _together() else 0


def world_size() -> int:
    """Number of processes that work together; 1 where there is no process group."""
    return distributed.get_world_size() if _together() else 1


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
