"""SIGTERM and SIGUSR1 in mid-run: is the resumed pretraining the undisturbed one, bit for bit?

    python tests/qa/stop_and_resume.py [--stops 5] [--processes 1 2] [--seed 0]

A toy pretraining runs undisturbed through tools/train.py (one process) or tools/dist_train.sh (two). Then it is started
again, gets a signal at a random moment after a random step that its log shows, and is started with --resume. The
steps leave time enough before the end for the signal to arrive. Every tensor of the last checkpoint is compared with
the undisturbed run's. One JSON line; exit code 1 where a tensor differs, a run that was stopped did not exit with 75,
or a signal came after the last step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mst_pretrain.checkpoints.storage import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60
LAST_ASKED = 45  # step after which a signal is still sent: the later ones take longer than a signal
CONFIG = """
_base_ = {base!r}
data_root = {images!r}
model = dict(
    backbone=dict(
        name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.2
    ),
    head=dict(prototypes=24, hidden_dim=16, bottleneck_dim=8),
    decoder=dict(width=8, min_width=4),
)
train_dataloader = dict(
    batch_size={batch},
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        crops=dict(global_crops=[dict(size=32), dict(size=32)], local_crop=dict(size=16), local_count=2),
    ),
)
train_cfg = dict(max_epochs=40, max_iters={steps})
default_hooks = dict(checkpoint=dict(interval=25), logger=dict(interval=1))
"""


def draw_images(folder: Path) -> None:
    """17 images of colour noise."""
    folder.mkdir(parents=True)
    for index in range(17):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((56 + index, 48)).save(folder / f"{index}.png")


def free_port() -> str:
    """A TCP port that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def begin(config: Path, work_dir: Path, processes: int, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a training in a new process group; its output goes to ``work_dir.log``."""
    options = ["--work-dir", str(work_dir), *arguments]
    command = [sys.executable, "tools/train.py", str(config), *options]
    if processes > 1:
        command = ["bash", "tools/dist_train.sh", str(config), str(processes), *options]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PORT": free_port()}
    with open(work_dir.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def wait_for(step: int, work_dir: Path, process: subprocess.Popen[bytes]) -> float:
    """Wait until the log of a training shows a step, from 0, the weights before the first; the time then."""
    while process.poll() is None:
        if step == 0 and (work_dir / "initial.pth").exists():
            return time.monotonic()
        logs = [path.read_text() for path in work_dir.glob("*/vis_data/scalars.json")]
        if any(f'"step": {step}}}' in line for log in logs for line in log.splitlines()):
            return time.monotonic()
        time.sleep(0.01)
    raise RuntimeError(f"{work_dir} ended before step {step}, see {work_dir.with_suffix('.log')}")


def unequal(one: Path, other: Path) -> list[str]:
    """Tensors of two checkpoints that differ."""
    states: list[dict[str, Any]] = [load_checkpoint(path)["state_dict"] for path in (one, other)]
    assert set(states[0]) == set(states[1])
    return [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]


def main() -> int:
    """Whole runs, stopped runs, one comparison each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stops", type=int, default=5, help="per signal and number of processes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments, results = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder / "images")
        for processes in args.processes:
            config = folder / f"of{processes}.py"
            base = str(ROOT / "configs/_base_/mst_pretrain.py")
            images = str(folder / "images")
            config.write_text(CONFIG.format(base=base, images=images, batch=4 // processes, steps=STEPS))
            process = begin(config, folder / f"whole{processes}", processes)
            started = wait_for(0, folder / f"whole{processes}", process)
            pace = (wait_for(LAST_ASKED, folder / f"whole{processes}", process) - started) / LAST_ASKED
            assert process.wait() == 0
            whole = folder / f"whole{processes}/latest.pth"
            for number in [signal.SIGTERM, signal.SIGUSR1] * args.stops:
                work_dir = folder / f"stopped{processes}-{len(results)}"
                process = begin(config, work_dir, processes)
                wait_for(moments.randint(0, LAST_ASKED), work_dir, process)
                time.sleep(moments.uniform(0, pace))
                process.send_signal(number)
                code = process.wait(timeout=120)
                latest = work_dir / "latest.pth"
                step = load_checkpoint(latest)["meta"]["iter"] if latest.exists() else 0
                assert begin(config, work_dir, processes, "--resume").wait(timeout=600) == 0
                differ = unequal(whole, latest)
                results.append(
                    {
                        "processes": processes,
                        "signal": number.name,
                        "code": code,
                        "step": step,
                        "differ": len(differ),
                    }
                )
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    codes = Counter(f"{entry['signal']} {entry['code']}" for entry in results)
    bad = sum(entry["differ"] > 0 or entry["code"] != 75 or entry["step"] == STEPS for entry in results)
    print(json.dumps({"benchmark": "stop_and_resume", "stops": results, "codes": codes, "wrong": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
