"""Checkpoints of this and other projects: read, converted, inspected."""

from .backbone import Backbone, read_backbone
from .conversion import convert_checkpoint, write_backbone

__all__ = ["Backbone", "convert_checkpoint", "read_backbone", "write_backbone"]
