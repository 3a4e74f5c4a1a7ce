"""The former place of :mod:`mst_transfer.training.loops`, for configs that name it in ``custom_imports``."""

from .training.loops import CappedEpochLoop, ExactIterLoop

__all__ = ["CappedEpochLoop", "ExactIterLoop"]
