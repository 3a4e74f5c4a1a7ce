"""Checkpoints of other projects and what those projects compute from them, written without sight of our converter."""

from .files import (
    ARCHITECTURES,
    EVALUATED,
    FORMATS,
    MODELS,
    ROLES,
    backbone,
    checkpoint,
    exists,
    manifest,
)
from .forward import features, swin_stages

__all__ = [
    "ARCHITECTURES",
    "EVALUATED",
    "FORMATS",
    "MODELS",
    "ROLES",
    "backbone",
    "checkpoint",
    "exists",
    "features",
    "manifest",
    "swin_stages",
]
