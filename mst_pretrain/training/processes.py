"""How this process was started: which launcher, whether its variables are there, and what must not go on by itself."""

from __future__ import annotations

import os

from ..runtime.errors import UserError

OTHER_RANK_WAITS = 15.0  # seconds, in which the first process says what is wrong and ends the job
VARIABLES = {  # that MMEngine reads
    "pytorch": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "MASTER_ADDR"),
}
STARTERS = {"pytorch": "torchrun (bash tools/dist_train.sh)", "slurm": "srun (bash tools/slurm_train.sh)"}
STARTERS["mpi"] = "mpirun, MASTER_ADDR from you"
# How many processes were started by what, where nothing tells this one to join them
SIZES = {
    "WORLD_SIZE": "Start all of them with torchrun (bash tools/dist_train.sh), or run this one alone: unset WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS": "Add --launcher slurm (bash tools/slurm_train.sh does), or start one task: srun -n 1",
    "OMPI_COMM_WORLD_SIZE": "Add --launcher mpi, or start it without mpirun",
    "PMI_SIZE": "Start them with torchrun (bash tools/dist_train.sh) instead",
}


def launcher_of(given: str) -> str:
    """The launcher that this process was started by, and its rank in ``RANK``, which is read before they meet.

    Args:
        given: ``--launcher``. With "none", processes of torchrun are recognised by their variables.

    Returns:
        "pytorch", "slurm", "mpi", or "none" for a process that is alone.

    Raises:
        UserError: The launcher's variables are missing or impossible, or several processes were started without one:
            each would do the same work and write the same files.
    """
    if given == "none" and _number("WORLD_SIZE", 1) > 1 and all(map(os.environ.get, VARIABLES["pytorch"])):
        given = "pytorch"
    if given == "none":
        for name, remedy in SIZES.items():
            if (size := _number(name, 1)) > 1:
                raise UserError(
                    f"{name}={size}: this is one of {size} processes, but no launcher joins them, so that each would "
                    f"do the same and write the same files. {remedy}."
                )
        for name in ("RANK", "LOCAL_RANK"):  # of another job
            os.environ.pop(name, None)
        return given
    names = VARIABLES[given]
    if missing := [name for name in names if not os.environ.get(name)]:
        raise UserError(
            f"--launcher {given}: {', '.join(missing)} not set. Processes have them from {STARTERS[given]}: start them "
            "so, or leave --launcher out for one process."
        )
    rank_name = next(name for name in names if name.endswith(("RANK", "PROCID")))
    size_name = next(name for name in names if name.endswith(("SIZE", "NTASKS")))
    rank, size = _number(rank_name), _number(size_name)
    if not 0 <= rank < size:
        raise UserError(
            f"{rank_name}={rank} is not one of {size_name}={size} processes. Start them by {STARTERS[given]}."
        )
    if given == "pytorch":
        _check_gpus(_number("LOCAL_RANK"))
        _number("MASTER_PORT")
    os.environ["RANK"] = str(rank)
    return given


def _check_gpus(local_rank: int) -> None:
    """Refuse more processes than GPUs on a machine: each process needs its own GPU."""
    import torch  # here: help must not wait for it

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else local_rank + 1
    if local_rank >= gpus:
        raise UserError(
            f"LOCAL_RANK={local_rank}: more processes were started on this machine than the {gpus} GPUs that it shows. "
            f"Start {gpus} (bash tools/dist_train.sh CONFIG {gpus}), or correct CUDA_VISIBLE_DEVICES."
        )


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name) or ("" if default is None else str(default))
    if not text.strip().isdecimal():
        raise UserError(
            f"{name}='{text}' in the environment is not a whole number. Correct it, or unset {name}."
        )
    return int(text)
