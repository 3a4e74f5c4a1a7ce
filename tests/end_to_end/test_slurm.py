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
    arguments = ["--cfg-options", "train_dataloader.num_workers=4"]
    command = ["bash", "tools/slurm_train.sh", "gpus", "job", PRETRAIN, str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    asked = done.stdout.splitlines()
    workers = load_config(ROOT / PRETRAIN).train_dataloader.num_workers
    assert f"--cpus-per-task={given.get('CPUS_PER_TASK', workers + 2)}" in asked
    assert f"--ntasks={given.get('GPUS', 8)}" in asked and "--ntasks-per-node=8" in asked
    assert "--signal=USR1@120" in asked
    own = [f"--work-dir={tmp_path}/out", "--launcher=slurm", "--resume"]
    tail = ["-u", str(ROOT / "tools/train.py"), PRETRAIN, *own, *arguments]
    assert asked[-len(tail) :] == tail


@pytest.mark.parametrize(
    ("code", "saved", "job", "count", "queued"),
    [
        (0, True, "7", "0", False),
        (2, True, "7", "0", False),
        (75, True, "7", "9", True),
        (75, False, "7", "0", False),  # others were ended because the first one refused its config
        (75, True, "", "0", False),
        (71, False, "7", "2", True),
        (137, True, "7", "3", False),
    ],
)
@pytest.mark.parametrize("script", ["slurm_job", "slurm_train"])
def test_a_stopped_job_is_queued_again(
    tmp_path: Path, script: str, code: int, saved: bool, job: str, count: str, queued: bool
) -> None:
    """A preempted run would end for good, one with a mistake in its config be started for ever."""
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    (out / "initial.pth").touch()
    os.utime(out / "initial.pth", (1e9, 1e9))  # of an earlier start
    save = f"touch {out}/checkpoints/last.pth; " if saved else ""
    for name, line in (
        ("srun", f"sleep 0.05; {save}exit {code}"),
        ("scontrol", f'echo "$@" >> {tmp_path}/queued'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    env |= {"PYTHON": sys.executable, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    env |= {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": count, "SLURM_SUBMIT_DIR": str(ROOT)}
    first = [] if script == "slurm_job" else ["gpus", "job"]
    command = ["bash", f"tools/{script}.sh", *first, PRETRAIN, str(out)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    asked = tmp_path / "queued"
    assert (asked.read_text() if asked.exists() else "") == (f"requeue {job}\n" if queued else "")


def test_the_batch_job_asks_for_the_signal_and_the_queue() -> None:
    """Slurm would kill the job at its time limit without a word, or not take it back into the queue."""
    text = (ROOT / "tools/slurm_job.sh").read_text()
    asked = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--signal=USR1@120", "--requeue", "--open-mode=append", "--nodes=2"} <= set(asked)
