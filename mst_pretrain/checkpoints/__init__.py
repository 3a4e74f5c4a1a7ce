"""Checkpoints of this and other projects: read, converted, inspected."""

from .conversion import Backbone, convert_checkpoint, read_backbone, write_backbone

__all__ = ["Backbone", "convert_checkpoint", "read_backbone", "write_backbone"]
