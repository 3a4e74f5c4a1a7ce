"""The first steps of a run in words: what they took, what the system must give, and how long the run is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import torch
from mmengine.config import Config
from torch import distributed

from mst_pretrain.runtime.devices import usable_cores
from mst_pretrain.runtime.distributed import rank, world_size
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.run_files import SWITCH
from mst_pretrain.training.failing_saves import NotWritten
from mst_pretrain.training.memory import is_out_of_memory

from ..findings import OK, Diagnosis, Line
from . import limits
from .rehearsal import Rehearsed, rehearse
from .sample import Sampled, workspace

SHARED_MEMORY = Path("/dev/shm")


def processes_here() -> int:
    """Processes of the run on this machine."""
    there = world_size()
    if torch.cuda.is_available():
        there = min(there, torch.cuda.device_count())
    return int(os.environ.get("LOCAL_WORLD_SIZE") or there)


def for_loading(found: Sampled) -> Iterator[Line]:
    """What the workers ask of the system; too little of it would kill the first step."""
    space = shutil.disk_usage(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    free, size = (space.free, space.total) if space else (None, None)
    yield from limits.shared_memory(found.loading, processes_here(), free, size)
    sharing = torch.multiprocessing.get_sharing_strategy()
    yield from limits.file_handles(found.loading, handle_limit(), sharing)


def steps(diagnosis: Diagnosis, cfg: Config, found: Sampled) -> Iterator[Line]:
    """The first steps, what they ask of the system, and the length of the run."""
    free_before = free_memory()
    here = workspace(cfg.work_dir)
    free_disk = shutil.disk_usage(here).free
    try:
        folder = shared_folder(here)
    except OSError as error:
        raise UserError(
            f"--work-dir {cfg.work_dir} cannot be written ({error.strerror}). Give another folder: --work-dir DIR"
        ) from error
    try:
        everyone = rehearse(cfg, folder)
    except UserError as error:
        words = str(error).replace(str(folder), str(here))
        if not isinstance(error.__cause__, NotWritten):
            raise UserError(words) from error
        raise UserError(f"{words} Free some space, or write elsewhere: --work-dir DIR") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):  # of a step: run() has named it
            raise
        raise UserError(
            f"the network alone does not fit into the memory ({error}). Use a smaller one."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for number, one in enumerate(everyone):
        where = f"process {number}: " if len(everyone) > 1 else ""
        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
        yield (
            OK,
            f"{where}{one.steps} steps on {device}, {one.step_seconds:.3g} s each, loss {one.loss:.4g}, "
            f"{limits.gib(one.peak)} at the peak",
        )
    yield from demands(diagnosis, cfg, found, everyone, (free_before, free_disk), here)


def demands(
    diagnosis: Diagnosis,
    cfg: Config,
    found: Sampled,
    everyone: list[Rehearsed],
    free: tuple[int | None, int],
    here: Path,
) -> Iterator[Line]:
    """What the run asks of the system, and its length."""
    own, gpus = max(everyone, key=lambda one: one.step_seconds), len(everyone)
    peak, saved_once = max(one.peak for one in everyone), everyone[0]
    on_gpu = torch.cuda.is_available()
    local = processes_here()
    cores_each = max(usable_cores() // local, 1)
    text = (
        f"a checkpoint of {limits.mib(saved_once.checkpoint)} was written in {saved_once.write_seconds:.2g} s and read "
        f"back in {saved_once.read_seconds:.2g} s, every weight equal"
    )
    yield OK, text
    yield from limits.memory(
        peak, 1 if on_gpu else local, free[0], "GPU" if on_gpu else "CPU", cfg.train_dataloader.batch_size
    )
    yield from limits.cores(found.loading, own.batch, own.step_seconds, cores_each)
    tidy = cfg.get(SWITCH) is True
    begins = tidy or (cfg.get("train_cfg") or {}).get("type") == "PretrainLoop"
    written = limits.saved(cfg, own.iterations, own.per_epoch, tidy, begins)
    yield from limits.disk(written, saved_once.checkpoint, free[1], str(here))
    working = min(found.loading.workers, cores_each)
    waits = found.loading.seconds * own.batch / max(working, 1)
    seconds = max(own.step_seconds, waits) if working else own.step_seconds + waits
    hours = (own.iterations * seconds + written.saves * saved_once.write_seconds) / 3600
    ends = datetime.now() + timedelta(hours=hours)
    kind = "GPU" if on_gpu else "process"
    diagnosis.measured |= {
        "step_seconds": own.step_seconds,
        "load_seconds": found.loading.seconds,
        "iteration_seconds": seconds,
        "iterations": own.iterations,
        "hours": hours,
        f"{kind.lower()}_hours": hours * gpus,
        "ends": ends.isoformat(timespec="minutes"),
        "processes": [asdict(one) for one in everyone],
    }
    text = (
        f"the run: {own.iterations:,} iterations of {own.batch * gpus:,} images, {seconds:.3g} s each with loading: "
        f"{hours:,.2f} hours, {hours * gpus:,.2f} {kind}-hours; started now it ends {ends:%Y-%m-%d %H:%M}, "
        "validations not counted"
    )
    yield OK, text


def shared_folder(here: Path) -> Path:
    """A new folder below ``here`` that all processes know."""
    path = [tempfile.mkdtemp(prefix=".mst-doctor-", dir=here) if rank() == 0 else ""]
    if world_size() > 1:
        distributed.broadcast_object_list(path)
    return Path(path[0])


def free_memory() -> int | None:
    """Bytes that are free for this process's steps: of its GPU, or of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    from mst_pretrain.data.pixel_cache import free_memory as of_the_machine

    return of_the_machine() or None


def handle_limit() -> int | None:
    """Files that this process may have open; None where the system has no such limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft
