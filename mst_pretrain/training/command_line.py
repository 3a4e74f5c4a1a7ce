"""The arguments that training and test share. Importing it imports no torch: help must not wait for it."""

from __future__ import annotations

import argparse

from ..runtime.options import ConfigOptions

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
PACKAGES = ("tensorboard", "wandb", "mlflow")  # names of the loggers and of the packages that they need


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that training and test share, named as mmdet names them."""
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/<config name>)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="override keys of the config, dotted; +KEY=VALUE adds a new one; data_root=DIR moves "
        "every path below the old data root",
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="job launcher")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
