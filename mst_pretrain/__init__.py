"""MST pretraining. Importing it registers the model, data, hooks and loop with MMEngine."""

from . import engine, first_steps, health, hooks, mst, optim
from .data import datasets, photometric, sampler

__all__ = ["datasets", "engine", "first_steps", "health", "hooks", "mst", "optim", "photometric", "sampler"]
