"""What a result was measured on: versions, device, processes, memory."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from datetime import datetime, timezone
from typing import Any

import timm
import torch
import torchvision

from .distributed import world_size


def environment_info(device: torch.device | None = None) -> dict[str, Any]:
    """Date, number of processes, device and versions, as every result's JSON has them.

    Args:
        device: The device that computed; by default the current GPU, or the CPU where there is none.
    """
    try:
        own = importlib.metadata.version("mst-toolkit")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "world_size": world_size(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {
            "mst-toolkit": own,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
    }


def peak_memory() -> float:
    """GiB: the GPU's tensors where there is one, else this process's resident memory."""
    return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_process_memory()) / 2**30


def peak_process_memory() -> int:
    """Bytes, the largest resident size so far; workers that load images are processes of their own.

    0 where Python cannot ask the system: on Windows.
    """
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
