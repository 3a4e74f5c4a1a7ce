"""How processes are started: a launcher that is recognised, one without its variables, several without a launcher."""

from __future__ import annotations

import os
import re

import pytest
import torch

from mst_pretrain.evaluation import ranks
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.processes import SIZES, VARIABLES, launcher_of

TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_NODELIST": "n1", "SLURM_STEP_NUM_TASKS": "8"}
MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "MASTER_ADDR": "n1",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*SIZES, *TORCHRUN, *SLURM, *MPI}:
        monkeypatch.setenv(name, "")  # so that it is restored, whatever the function does to it
        monkeypatch.delenv(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("given", "variables", "launcher", "rank"),
    [
        ("none", {}, "none", None),
        ("none", TORCHRUN, "pytorch", "1"),
        ("pytorch", TORCHRUN, "pytorch", "1"),
        ("slurm", {**SLURM, "RANK": "0"}, "slurm", "3"),
        ("mpi", MPI, "mpi", "2"),
        ("none", {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, "none", None),
        ("none", {"RANK": "5", "LOCAL_RANK": "5"}, "none", None),
        (
            "none",
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_NODELIST": "n1"},
            "none",
            None,
        ),  # in a batch script
        (
            "pytorch",
            {**TORCHRUN, "SLURM_STEP_NUM_TASKS": "2"},
            "pytorch",
            "1",
        ),  # torchrun, once a node by srun
    ],
)
def test_launchers_are_recognised(
    monkeypatch: pytest.MonkeyPatch, given: str, variables: dict[str, str], launcher: str, rank: str | None
) -> None:
    """torchrun without --launcher would train twice and write both into one folder; a left-over rank hide checks."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launcher_of(given) == launcher and os.environ.get("RANK") == rank


@pytest.mark.parametrize(
    ("given", "variables", "message"),
    [
        ("none", {"WORLD_SIZE": "4"}, r"WORLD_SIZE=4: .*no launcher joins.*dist_train\.sh.*unset WORLD_SIZE"),
        (
            "none",
            {k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"},
            r"WORLD_SIZE=2: .*write the same files",
        ),
        ("none", SLURM, r"SLURM_STEP_NUM_TASKS=8: .*Add --launcher slurm"),
        ("none", MPI, r"OMPI_COMM_WORLD_SIZE=4: .*Add --launcher mpi"),
        ("none", {"PMI_SIZE": "2"}, r"PMI_SIZE=2: .*torchrun"),
        (
            "none",
            {"WORLD_SIZE": "two"},
            r"WORLD_SIZE='two' in the environment is not a whole number.*unset WORLD_SIZE",
        ),
        (
            "pytorch",
            {},
            r"--launcher pytorch: RANK, LOCAL_RANK, WORLD_SIZE, .* not set.*torchrun.*leave --launcher out",
        ),
        ("pytorch", {**TORCHRUN, "MASTER_PORT": ""}, r"--launcher pytorch: MASTER_PORT not set"),
        ("pytorch", {**TORCHRUN, "RANK": "2"}, r"RANK=2 is not one of WORLD_SIZE=2 processes"),
        ("pytorch", {**TORCHRUN, "RANK": "-1"}, r"RANK='-1' in the environment is not a whole number"),
        ("pytorch", {**TORCHRUN, "LOCAL_RANK": "x"}, r"LOCAL_RANK='x'"),
        ("slurm", {}, r"--launcher slurm: SLURM_PROCID, SLURM_NTASKS, SLURM_NODELIST not set.*srun"),
        ("mpi", {**MPI, "MASTER_ADDR": ""}, r"--launcher mpi: MASTER_ADDR not set"),
    ],
)
def test_impossible_starts_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: str, variables: dict[str, str], message: str
) -> None:
    """Equal runs would overwrite each other's checkpoints, or the start would end in KeyError: 'RANK'."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        launcher_of(given)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start would end in "invalid device ordinal", after the data had been checked."""
    for name, value in {**TORCHRUN, "RANK": "4", "LOCAL_RANK": "4", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError, match=r"LOCAL_RANK=4: more processes .* than the 4 GPUs.*CONFIG 4"):
        launcher_of("pytorch")


def test_evaluation_asks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """k-NN with a left-over WORLD_SIZE would end in a traceback of torch's."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(UserError, match=r"WORLD_SIZE=8"):
        ranks.start()


def test_every_launcher_has_a_rank_and_a_size() -> None:
    """A launcher's check would pick a wrong variable."""
    for names in VARIABLES.values():
        assert any(re.search("RANK$|PROCID$", name) for name in names)
        assert any(re.search("SIZE$|NTASKS$", name) for name in names)
