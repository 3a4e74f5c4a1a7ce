"""Checkpoints of this and other projects: read, converted, inspected. Its functions import torch when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbone import Backbone, read_backbone
    from .conversion import convert_checkpoint, write_backbone

__all__ = ["Backbone", "convert_checkpoint", "read_backbone", "write_backbone"]
_HOMES = {
    "Backbone": "backbone",
    "convert_checkpoint": "conversion",
    "read_backbone": "backbone",
    "write_backbone": "conversion",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
