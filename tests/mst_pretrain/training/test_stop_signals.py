"""A training that is asked to stop ends after its step, with a checkpoint from which it continues exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import Stopped
from mst_pretrain.training.runner import MSTRunner, build_runner

MakeConfig = Callable[..., Config]
ROOT = Path(__file__).parents[3]
TWICE = """
import os, signal, sys, time
from mst_pretrain.runtime.errors import run_cli
from mst_pretrain.training.signals import begin_steps, stop_requested, stop_signals

def main():
    with stop_signals():
        if sys.argv[1] == "steps":
            begin_steps()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_requested()
        print("still here", flush=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)

run_cli(main)
"""


class SignalAt(Hook):
    """Sends this process a signal when a step begins."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.step:
            os.kill(os.getpid(), self.number)


def run(cfg: Config, *hooks: Hook) -> MSTRunner:
    runner = build_runner(cfg)
    assert isinstance(runner, MSTRunner)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


@pytest.mark.parametrize(
    ("number", "workers", "accumulate"),
    [(signal.SIGTERM, 0, 2), (signal.SIGUSR1, 2, 1)],
    ids=["term", "usr1"],
)
def test_a_stopped_run_continues_exactly(
    toy_config: MakeConfig, number: int, workers: int, accumulate: int
) -> None:
    """A job that reaches its time limit would lose everything since its last checkpoint."""
    options: dict[str, Any] = {
        "train_cfg__max_iters": 6,
        "train_cfg__accumulate": accumulate,
        "train_dataloader__batch_size": 3,
        "train_dataloader__num_workers": workers,
        "model__backbone__drop_path_rate": 0.3,
    }
    whole = load_checkpoint(Path(run(toy_config(**options)).work_dir, "latest.pth"))
    cfg = toy_config(**options)
    with pytest.raises(Stopped, match=r"stopped after step 4\. Continue from .*latest\.pth with --resume"):
        run(cfg, SignalAt(4, number))
    stopped = Path(cfg.work_dir, "latest.pth")
    assert stopped.samefile(stopped.with_name("stopped.pth"))
    assert load_checkpoint(stopped)["meta"]["iter"] == 4
    cfg.resume, cfg.load_from, cfg.experiment_name = True, str(stopped), f"{cfg.experiment_name}-resumed"
    resumed = load_checkpoint(Path(run(cfg).work_dir, "latest.pth"))
    assert resumed["meta"]["iter"] == 6 and whole["meta"]["iter"] == 6
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name


def test_a_checkpoint_that_was_due_is_not_written_twice(toy_config: MakeConfig) -> None:
    """A stop at a checkpoint's step would write half a gigabyte again while the batch system waits."""
    cfg = toy_config(train_cfg__max_iters=6, default_hooks__checkpoint__interval=2)
    with pytest.raises(Stopped):
        run(cfg, SignalAt(4, signal.SIGTERM))
    assert Path(cfg.work_dir, "latest.pth").samefile(Path(cfg.work_dir, "iter_4.pth"))
    assert not Path(cfg.work_dir, "stopped.pth").exists()


def test_a_signal_in_the_last_step_changes_nothing(toy_config: MakeConfig) -> None:
    """A finished run would be reported as one to be continued, for ever."""
    cfg = toy_config(train_cfg__max_iters=3)
    assert run(cfg, SignalAt(3, signal.SIGTERM)).iter == 3
    assert Path(cfg.work_dir, "latest.pth").samefile(Path(cfg.work_dir, "iter_3.pth"))


def test_handlers_are_those_of_before(toy_config: MakeConfig) -> None:
    """A program that trains in its own process would no longer end on SIGTERM."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    run(toy_config(train_cfg__max_iters=1))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


@pytest.mark.parametrize(
    ("phase", "code", "stdout", "stderr"),
    [
        ("steps", 138, "still here\n", "SIGTERM: stopping after this step. A second signal stops at once.\n"),
        ("start", 75, "", "SIGTERM before the first step: there is nothing to save.\n"),
    ],
)
def test_a_second_signal_and_one_before_the_first_step_end_at_once(
    phase: str, code: int, stdout: str, stderr: str
) -> None:
    """A run that hangs in its last step could only be killed with SIGKILL; one that starts would train a step first."""
    command = [sys.executable, "-c", TWICE, phase]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ}, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, stdout, stderr)


def test_data_workers_outlive_a_signal_to_their_group_but_not_their_parent(toy_config: MakeConfig) -> None:
    """Slurm and torchrun signal the workers too: the last step would wait for a batch that never comes."""
    cfg = toy_config(train_dataloader__num_workers=1, train_dataloader__persistent_workers=True)
    loader: DataLoader = build_runner(cfg).build_dataloader(cfg.train_dataloader, seed=0)
    batches: Any = iter(loader)
    next(batches)
    worker = batches._workers[0]
    for name in ("TERM", "USR1"):  # from another process, as a batch system sends it
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    time.sleep(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


def test_a_signal_at_the_start_ends_a_process_whose_main_thread_waits() -> None:
    """While processes wait for each other, Python's handlers do not run: torchrun would kill them after 30 seconds."""
    code = (
        "import os, signal, threading\n"
        "from torch.distributed import TCPStore\n"
        "from mst_pretrain.training.signals import handle_signals\n"
        "handle_signals()\n"
        "threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "TCPStore('127.0.0.1', 0, 2, True)\n"  # for a second one that never comes
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ended.returncode == 75, ended.stderr
    assert ended.stderr.count("SIGTERM before the first step: there is nothing to save.") == 1


def test_a_signal_while_python_ends_changes_nothing() -> None:
    """A batch system would see a killed run where one was finished, or stopped with its checkpoint."""
    code = (
        "import atexit, os, signal, sys\n"
        "from mst_pretrain.training.signals import handle_signals, stop_signals\n"
        "class Late:\n    def __del__(self): os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.modules['late'] = Late()\n"  # goes when modules go, long after atexit
        "handle_signals()\n"
        "with stop_signals(): pass\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "sys.exit(75)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert ended.returncode == 75, ended.stderr
