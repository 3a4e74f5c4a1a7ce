"""What slurm_train.sh asks Slurm for, seen by an srun of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mst_pretrain.training.launch import processors_per_task

ROOT = Path(__file__).parents[2]
PRETRAIN = "configs/pretrain/mst_deit-s_8xb64-100e_in1k.py"
DETECT = "configs/coco/mask_rcnn_mst.py"


def srun(tmp_path: Path, *arguments: str, code: int = 0, **environment: str) -> list[str]:
    """The arguments that srun gets, or what is said on stderr."""
    fake = tmp_path / "bin/srun"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key != "CPUS_PER_TASK"}
    env |= {"PYTHON": sys.executable, "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}", **environment}
    command = ["bash", "tools/slurm_train.sh", "gpus", "job", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return (done.stderr if code else done.stdout).splitlines()


@pytest.mark.parametrize(
    ("config", "arguments", "workers"),
    [
        (PRETRAIN, [], 8),
        (DETECT, [], 2),
        (
            PRETRAIN,
            ["--resume", "--cfg-options", "train_dataloader.num_workers=4", "randomness.seed=1"],
            4,
        ),
        (PRETRAIN, ["--cfg-options", "train_dataloader.num_workers=0", "--amp"], 0),
    ],
)
def test_every_data_worker_gets_a_processor(
    config: str, arguments: list[str], workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine processes would share five processors, and the GPUs wait for images."""
    processors_per_task([str(ROOT / config), *arguments])
    assert capsys.readouterr().out == f"{workers + 2}\n"


def test_the_script_asks_for_them(tmp_path: Path) -> None:
    """srun would get other processors or arguments, or the lines that a config prints as their number."""
    config = tmp_path / "loud.py"
    config.write_text(f"_base_ = {str(ROOT / PRETRAIN)!r}\nprint('hello from the config')\n")
    arguments = ["--resume", "--cfg-options", "train_dataloader.num_workers=4"]
    for environment, processors in (({}, 4 + 2), ({"CPUS_PER_TASK": "7"}, 7)):
        asked = srun(tmp_path, str(config), "out", *arguments, **environment)
        assert [argument for argument in asked if "cpus-per-task" in argument] == [
            f"--cpus-per-task={processors}"
        ]
        tail = ["-u", str(ROOT / "tools/train.py"), str(config), "--work-dir=out", "--launcher=slurm"]
        assert asked[-len(tail) - len(arguments) :] == [*tail, *arguments]
        assert "--ntasks=8" in asked and "--ntasks-per-node=8" in asked


def test_a_mistyped_config_is_refused_before_the_queue(tmp_path: Path) -> None:
    """The job would wait for its GPUs to say that there is no such config."""
    said = srun(tmp_path, "absent.py", "out", code=2)
    assert [line for line in said if line.startswith("error: ")] == [said[-1]] and "absent.py" in said[-1]
