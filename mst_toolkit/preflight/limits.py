"""What the system allows, beside what a run will ask for: shared memory, open files, disk, memory, cores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from ..findings import FAULT, OK, WARN, Line

GIB = 2**30
OPEN_ANYWAY = 128  # files that a process has open without loading anything: libraries, logs, sockets
NEAR = 0.8  # of what is there, from which on a warning is due


@dataclass(frozen=True)
class Loading:
    """How batches come from the workers of one process.

    Attributes:
        workers: Processes that load.
        prefetch: Batches that each of them makes ahead.
        batch_bytes: Tensors of one batch.
        batch_tensors: Their number: each is a piece of shared memory with a file handle of its own.
        seconds: Of one image on one core.
    """

    workers: int
    prefetch: int
    batch_bytes: int
    batch_tensors: int
    seconds: float

    @property
    def ahead(self) -> int:
        """Batches that lie in shared memory at most: those made ahead, and the one in use."""
        return self.workers * self.prefetch + 1 if self.workers else 0


def shared_memory(loading: Loading, processes: int, free: int | None, size: int | None) -> Iterator[Line]:
    """Whether the batches of all workers of a machine fit into ``/dev/shm``.

    Args:
        loading: Of one process.
        processes: Of this machine.
        free: Bytes free in ``/dev/shm``; None where the system has none.
        size: Bytes of ``/dev/shm``.
    """
    if free is None or size is None or not loading.workers:
        return
    need = loading.ahead * loading.batch_bytes * processes
    text = (
        f"shared memory: {mib(need)} for the batches of {counted(loading.workers * processes)}, {mib(free)} of "
        f"{mib(size)} free in /dev/shm"
    )
    if need <= NEAR * free:
        yield OK, text
        return
    fitting = (
        int(NEAR * free / (loading.batch_bytes * processes * loading.prefetch)) if loading.batch_bytes else 0
    )
    gib = ceil(need / NEAR / GIB)
    remedy = f"mount -o remount,size={gib}G /dev/shm; in a container start it with --shm-size={gib}g"
    fewer = f"or train_dataloader.num_workers={max(fitting, 0)}"
    yield (FAULT if need > free else WARN), f"{text}: a worker would be killed. {remedy}; {fewer}"


def file_handles(loading: Loading, limit: int | None, sharing: str) -> Iterator[Line]:
    """Whether a process may open as many files as its workers' tensors need.

    Args:
        loading: Of one process.
        limit: The soft limit of open files; None without one.
        sharing: PyTorch's strategy; only ``file_descriptor`` keeps a handle for each tensor.
    """
    if limit is None or not loading.workers or sharing != "file_descriptor":
        return
    need = OPEN_ANYWAY + loading.ahead * loading.batch_tensors + 4 * loading.workers
    text = f"file handles: about {need:,} of {limit:,} allowed"
    if need <= limit:
        yield OK, text
        return
    yield (
        FAULT,
        f"{text}: loading would end with 'Too many open files'. ulimit -n {2 ** (need - 1).bit_length()}",
    )


@dataclass(frozen=True)
class Saved:
    """What a run writes.

    Attributes:
        saves: Checkpoints written in the whole run.
        kept: Of these, how many are on the disk at once, others that a run keeps included.
    """

    saves: int
    kept: int


def saved(cfg: Mapping[str, Any], iterations: int, per_epoch: int, tidy: bool, begins: bool) -> Saved:
    """How many checkpoints a config writes and keeps.

    Args:
        cfg: The config.
        iterations: Of the run.
        per_epoch: Iterations of an epoch.
        tidy: Whether it has a run folder, whose ``last.pth`` is replaced.
        begins: Whether the initial weights are kept too.
    """
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    log = (cfg.get("default_hooks") or {}).get("logger") or {}
    by_epoch = hook.get("by_epoch", "Healthy" not in str(hook.get("type")))
    interval = int(hook.get("interval", -1)) * (per_epoch if by_epoch else 1)
    saves = iterations // interval if interval > 0 else 0
    if hook.get("save_last", True) and (interval <= 0 or iterations % interval):
        saves += 1
    limit = int(hook.get("max_keep_ckpts", 1 if tidy else -1))
    every = hook.get("keep_every_epochs")
    for_good = iterations // (every * per_epoch) if every else 0
    kept = saves if limit <= 0 else min(saves, limit + for_good)
    best = bool(hook.get("save_best") or log.get("save_best") or cfg.get("evaluation"))
    return Saved(saves, kept + best + begins + 1)  # the last: a new one is whole before an old one goes


def disk(written: Saved, checkpoint: int, free: int, place: str) -> Iterator[Line]:
    """Whether all checkpoints that a run keeps fit.

    Args:
        written: See :func:`saved`.
        checkpoint: Bytes of one.
        free: Bytes free.
        place: The work directory.
    """
    need = written.kept * checkpoint
    text = (
        f"disk: {written.saves} checkpoints of {mib(checkpoint)} are written, at most {written.kept} files at once: "
        f"{mib(need)} of {mib(free)} free at {place}"
    )
    if need <= NEAR * free:
        yield OK, text
        return
    yield (
        FAULT if need > free else WARN,
        f"{text}. Free {mib(max(need - free, need // 4))}, keep fewer (default_hooks.checkpoint.max_keep_ckpts=3), or "
        "write elsewhere: --work-dir DIR",
    )


def memory(peak: int, processes: int, free: int | None, device: str, batch: int) -> Iterator[Line]:
    """Whether the steps leave memory.

    Args:
        peak: Bytes of one process at its highest.
        processes: That share the memory: one on each GPU, all on a CPU.
        free: Bytes that were free for them before the first step; None where the system does not tell.
        device: ``GPU`` or ``CPU``.
        batch: Images of a micro-batch of one process.
    """
    text = f"memory: {gib(peak)} at the peak {'of a GPU' if device == 'GPU' else 'of a process'}"
    if free is None:
        yield OK, text
        return
    text += (
        f"{f' and {processes} processes' if processes > 1 and device == 'CPU' else ''}, {gib(free)} were free"
    )
    if peak * processes <= NEAR * free:
        yield OK, text
        return
    yield (
        WARN,
        f"{text}: little is left. Set model.gradient_checkpointing=True, or halve train_dataloader.batch_size={batch} "
        "and double train_cfg.accumulate",
    )


def cores(loading: Loading, batch: int, step: float, per_process: int) -> Iterator[Line]:
    """Whether the workers keep up with the step.

    Args:
        loading: Of one process.
        batch: Images of an iteration of one process.
        step: Seconds of an iteration that never waits.
        per_process: Cores for each process of this machine.
    """
    needed = max(ceil(loading.seconds * batch / step), 1)
    working = min(loading.workers, max(per_process, 1))
    text = (
        f"loader: {1000 * loading.seconds:.1f} ms an image and core; {counted(needed)} would keep up with the step, "
        f"the config has {loading.workers}, and cores for {working}"
    )
    if working >= needed:
        yield OK, text
    elif loading.workers < needed <= per_process:
        yield WARN, f"{text}. Set train_dataloader.num_workers={needed}"
    else:
        yield (
            WARN,
            f"{text}: the step waits for images. Use more cores, smaller files, or keep decoded "
            "images (train_dataloader.dataset.cache)",
        )


def counted(workers: int) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{workers} worker{'s' * (workers != 1)}"


def mib(size: float) -> str:
    """``240 KiB``, ``2.4 MiB``, ``1,024 MiB``, and GiB from ten on."""
    if size >= 10 * GIB:
        return f"{size / GIB:,.1f} GiB"
    if size < 2**20:
        return f"{ceil(size / 2**10)} KiB"
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{ceil(size / 2**20):,} MiB"


def gib(size: float) -> str:
    """``1.25 GiB``."""
    return f"{size / GIB:.2f} GiB"
