"""Facts about the machine that a plan is made from."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in GiB."""

    name: str
    total: float
    free: float
    bfloat16: bool


@dataclass(frozen=True)
class Machine:
    """What computes.

    Attributes:
        cores: Of the CPU, that this process may use.
        memory: Free main memory in GiB, or None where the system does not tell.
        gpus: Visible NVIDIA or AMD GPUs.
        apple: Whether PyTorch can use an Apple GPU, which the pretraining does not use yet.
    """

    cores: int
    memory: float | None
    gpus: tuple[Gpu, ...]
    apple: bool = False

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if self.gpus else "cpu"

    @property
    def least_free(self) -> float | None:
        """GiB that are free on every GPU; None without one."""
        return min((gpu.free for gpu in self.gpus), default=None)

    def line(self) -> str:
        """For people: ``1 GPU: 24 GB (22.9 free), bf16``."""
        if not self.gpus:
            return f"no GPU; {self.cores} CPU core{'s' if self.cores > 1 else ''}"
        first = self.gpus[0]
        names = f"{len(self.gpus)} GPU{'s' if len(self.gpus) > 1 else ''} ({first.name})"
        return f"{names}: {first.total:.0f} GB ({first.free:.1f} free), {'bf16' if first.bfloat16 else 'no bf16'}"


def machine() -> Machine:
    """The machine of this process."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        capable = torch.cuda.get_device_capability(index)[0] >= 8 or torch.version.hip is not None
        gpus.append(Gpu(torch.cuda.get_device_name(index), total / GIB, free / GIB, capable))
    return Machine(usable_cores(), free_memory(), tuple(gpus), torch.backends.mps.is_available())


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> float | None:
    """GiB of main memory that a new program could have; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def free_disk(folder: Path) -> float:
    """GiB free where ``folder`` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / GIB


def workers(cores: int, processes: int) -> int:
    """Loading processes for each training process, which keeps a core of its own; at most 16."""
    if cores <= 2:
        return 1 if cores == 2 else 0
    return max(1, min(16, cores // processes - 1))
