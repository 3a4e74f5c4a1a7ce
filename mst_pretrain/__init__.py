"""MST pretraining. Importing it registers the model, data, hooks and loop with MMEngine."""

from . import averages, engine, first_steps, health, hooks, mst, optim, watch
from .data import datasets, photometric, sampler

__all__ = [
    "averages",
    "datasets",
    "engine",
    "first_steps",
    "health",
    "hooks",
    "mst",
    "optim",
    "photometric",
    "sampler",
    "watch",
]
