"""MST pretraining. Importing it registers the model, data, hooks and loop with MMEngine."""

from . import engine, hooks, mst, optim
from .data import datasets, photometric, sampler

__all__ = ["datasets", "engine", "hooks", "mst", "optim", "photometric", "sampler"]
