"""Importing this module registers the model, data, hooks and loop of MST with MMEngine, which it needs."""

from .data import datasets, photometric, sampler
from .method import mst
from .training import (
    feature_watch,
    first_steps,
    health,
    log_averages,
    loop,
    optim,
    run_log,
    runner,
    schedule_and_teacher,
    watch,
)

__all__ = [
    "datasets",
    "feature_watch",
    "first_steps",
    "health",
    "log_averages",
    "loop",
    "mst",
    "optim",
    "photometric",
    "run_log",
    "runner",
    "sampler",
    "schedule_and_teacher",
    "watch",
]
