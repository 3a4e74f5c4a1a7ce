"""MST pretraining. Importing it registers the model, data, hooks and loop with MMEngine."""

from .data import datasets, photometric, sampler
from .method import mst
from .training import first_steps, health, hooks, log_averages, loop, optim, runner, watch

__all__ = [
    "datasets",
    "first_steps",
    "health",
    "hooks",
    "log_averages",
    "loop",
    "mst",
    "optim",
    "photometric",
    "runner",
    "sampler",
    "watch",
]
