"""Facts about the machine that a plan is made from."""

from __future__ import annotations

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

    from mst_pretrain.data.pixel_cache import free_memory
    from mst_pretrain.runtime.devices import computes_bfloat16, usable_cores

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name, bfloat16 = torch.cuda.get_device_name(index), computes_bfloat16(torch.device("cuda", index))
        gpus.append(Gpu(name, total / GIB, free / GIB, bfloat16))
    memory = free_memory()  # 0 where the system does not tell
    return Machine(
        usable_cores(), memory / GIB if memory else None, tuple(gpus), torch.backends.mps.is_available()
    )


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
