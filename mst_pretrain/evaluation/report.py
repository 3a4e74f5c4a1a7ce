"""The result of an evaluation: one JSON object that says under which protocol its numbers were measured."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from ..checkpoints.storage import replacing
from .ranks import rank, world_size


def surroundings(device: torch.device) -> dict[str, Any]:
    """Date, versions, device and number of processes."""
    try:
        own = importlib.metadata.version("mst-toolkit")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
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


def publish(result: dict[str, Any], out: str | Path | None) -> None:
    """Write ``result`` to ``out``, whole or not at all, and print it as one line, in the first process only."""
    if rank() > 0:
        return
    if out is not None:
        write_json(result, out)
    print(json.dumps(result), flush=True)


def write_json(result: Any, path: str | Path, indent: int | None = 2) -> None:
    """Write JSON so that ``path`` is at every moment the old file or the whole new one."""
    with replacing(path) as part:
        part.write_text(json.dumps(result, indent=indent) + "\n", encoding="utf-8")
