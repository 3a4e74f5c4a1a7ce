"""What slurm_train.sh asks Slurm for, seen by an srun of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mst_pretrain.runtime.config import load_config

ROOT = Path(__file__).parents[2]
PRETRAIN = "configs/pretrain/mst_deit-s_8xb64-100e_in1k.py"


@pytest.mark.parametrize("given", [{}, {"CPUS_PER_TASK": "7", "GPUS": "16"}])
def test_the_script_asks_for_them(tmp_path: Path, given: dict[str, str]) -> None:
    """srun would get other processes, processors or arguments, or too few processors for the data workers."""
    fake = tmp_path / "srun"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key not in ("CPUS_PER_TASK", "GPUS")}
    env |= {"PYTHON": sys.executable, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **given}
    arguments = ["--resume", "--cfg-options", "train_dataloader.num_workers=4"]
    command = ["bash", "tools/slurm_train.sh", "gpus", "job", PRETRAIN, "out", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    asked = done.stdout.splitlines()
    workers = load_config(ROOT / PRETRAIN).train_dataloader.num_workers
    assert f"--cpus-per-task={given.get('CPUS_PER_TASK', workers + 2)}" in asked
    assert f"--ntasks={given.get('GPUS', 8)}" in asked and "--ntasks-per-node=8" in asked
    tail = ["-u", str(ROOT / "tools/train.py"), PRETRAIN, "--work-dir=out", "--launcher=slurm", *arguments]
    assert asked[-len(tail) :] == tail
