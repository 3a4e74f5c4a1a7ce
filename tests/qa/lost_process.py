"""One of two processes is killed or stopped in mid-run: does the job go on by itself, and as if nothing had happened?

    python tests/qa/lost_process.py [--faults kill stop] [--rank 1] [--seed 0]

A toy pretraining runs undisturbed in two processes (gloo, on the CPU) through tools/dist_train.sh. Then it is started
again with MAX_RESTARTS=1, and one of its two processes gets SIGKILL (kill) or SIGSTOP (stop) after a step that its log
shows, beyond a checkpoint. torchrun must notice, start both again, and they go on from the newest checkpoint. Every
tensor of the last checkpoint, of the optimizer too, is compared with the undisturbed run's. Printed: what the processes
said, the seconds from the signal to the first message about it and to the restart, and one JSON line; exit code 1
where a tensor differs, or it took longer than the stated time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mst_pretrain.checkpoints.storage import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.qa.stop_and_resume import CONFIG, draw_images, free_port, wait_for  # noqa: E402

FAULTS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
STEPS, INTERVAL = 60, 10
AFTER = (12, 30)  # steps, the first and the last: a checkpoint is there, and the end is far
SILENCE = 6.0  # seconds without a sign of life; the default is 60
SLACK = 15.0  # seconds on top of it, on busy cores
NOTICED = ("was ended by SIGKILL", "no sign of life")
AGAIN = "are started again"


def begin(config: Path, work_dir: Path, restarts: int) -> subprocess.Popen[str]:
    """Two processes by tools/dist_train.sh, in a process group of their own."""
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PORT": free_port()}
    return subprocess.Popen(
        ["bash", "tools/dist_train.sh", str(config), "2", "--work-dir", str(work_dir)],
        cwd=ROOT,
        env={**environment, "MAX_RESTARTS": str(restarts), "PYTHONUNBUFFERED": "1"},
        stdout=open(work_dir.with_suffix(".log"), "w"),
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def process_of(rank: int, parent: int) -> int:
    """The process id of a rank below torchrun.

    Raises:
        RuntimeError: There is none.
    """
    for listing in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in listing.read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in variables:
                return int(child)
    raise RuntimeError(f"process {parent} has no rank {rank}")


def seconds_until(words: tuple[str, ...], log: Path, process: subprocess.Popen[str], began: float) -> float:
    """Seconds from ``began`` until a line of the log has one of the words."""
    while not any(word in log.read_text() for word in words):
        if process.poll() is not None and not any(word in log.read_text() for word in words):
            raise RuntimeError(f"ended with {process.returncode} without a word:\n{log.read_text()[-3000:]}")
        time.sleep(0.02)
    return time.monotonic() - began


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Names of the tensors and numbers that differ in two checkpoints' entries."""
    if isinstance(one, dict):
        for key in {**one, **other}:
            yield from differences(one.get(key), other.get(key), f"{name}.{key}")
    elif isinstance(one, list | tuple):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{name}.{index}")
    elif isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield name
    elif one != other:
        yield name


def compared(checkpoint: Path) -> dict[str, Any]:
    """What must be equal bit for bit: weights, teacher, centre, optimizer, the number of steps."""
    loaded = load_checkpoint(checkpoint)
    return {
        "weights": loaded["state_dict"],
        "optimizer": loaded["optimizer"],
        "step": loaded["meta"]["iter"],
    }


def disturb(fault: str, rank: int, step: int, config: Path, work_dir: Path) -> dict[str, Any]:
    """One run with one lost process; what was seen."""
    log, process = work_dir.with_suffix(".log"), begin(config, work_dir, restarts=1)
    try:
        wait_for(step, work_dir, process)  # type: ignore[arg-type]
        os.kill(process_of(rank, process.pid), FAULTS[fault])
        began = time.monotonic()
        noticed = seconds_until(NOTICED, log, process, began)
        restarted = seconds_until((AGAIN,), log, process, began)
        code = process.wait(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = [line for line in log.read_text().splitlines() if line.startswith(("error:", "the processes"))]
    return {"fault": fault, "rank": rank, "step": step, "code": code, "said": said} | {
        "seconds_until_noticed": round(noticed, 2),
        "seconds_until_restart": round(restarted, 2),
    }


def main(argv: list[str] | None = None) -> int:
    """An undisturbed run, disturbed ones, a comparison each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=[*FAULTS])
    parser.add_argument("--rank", type=int, nargs="+", default=[1], help="which process is lost")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    moments, results = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder / "images")
        config = folder / "two.py"
        base, images = str(ROOT / "configs/_base_/mst_pretrain.py"), str(folder / "images")
        text = CONFIG.format(base=base, images=images, batch=2, steps=args.steps)
        text += f"default_hooks['checkpoint'] = dict(interval={INTERVAL})\n"
        text += f"default_hooks['watch'] = dict(silence={SILENCE})\n"
        config.write_text(text)
        whole = begin(config, folder / "whole", restarts=0)
        if whole.wait(timeout=600):
            raise RuntimeError((folder / "whole.log").read_text()[-3000:])
        expected = compared(folder / "whole/latest.pth")
        for fault in args.faults:
            for rank in args.rank:
                work_dir = folder / f"{fault}{rank}"
                step = min(moments.randint(*AFTER), args.steps - 8)
                found = disturb(fault, rank, step, config, work_dir)
                found["differ"] = len([*differences(expected, compared(work_dir / "latest.pth"))])
                found["compared"] = len(expected["weights"])
                results.append(found)
                print(*found["said"], json.dumps(found), sep="\n", file=sys.stderr, flush=True)
    limit = {"kill": SLACK, "stop": SILENCE + SLACK}
    bad = sum(
        entry["differ"] > 0 or entry["code"] != 0 or entry["seconds_until_restart"] > limit[entry["fault"]]
        for entry in results
    )
    print(json.dumps({"check": "lost_process", "silence": SILENCE, "runs": results, "wrong": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
