"""MST pretraining. Importing it registers the model, data, hooks and loop with MMEngine."""

from .data import datasets, photometric, sampler
from .method import mst
from .training import averages, first_steps, health, hooks, loop, optim, runner, watch

__all__ = [
    "averages",
    "datasets",
    "first_steps",
    "health",
    "hooks",
    "loop",
    "mst",
    "optim",
    "photometric",
    "runner",
    "sampler",
    "watch",
]
