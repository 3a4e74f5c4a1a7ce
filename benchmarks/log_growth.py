"""Does logging cost more the longer a run is? Drives the hooks of a pretraining's log alone, without a model's work.

    python benchmarks/log_growth.py [--at 1000 400000] [--old]

Every step hands 10 losses to the hooks that a pretraining config registers for its log (losses, times, learning
rate, gradient norm, the log line itself), as the loop does. Printed at each mark: median milliseconds per step over
200 steps, and the bytes that a checkpoint holds for the log. ``--old`` fills MMEngine's histories to each mark at once,
for a version that keeps them whole, where driving 400,000 steps would take an hour. One JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from PIL import Image

import mst_pretrain
from mst_pretrain.runtime.config import load_config
from mst_pretrain.training.runner import build_runner

ROOT = Path(mst_pretrain.__file__).parents[1]  # of the version that is measured
TOY = dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)
NAMES = ("loss", "loss_ce", "loss_rec", "teacher_entropy", "kl", "center_norm", "feature_std")
NAMES += ("masked_tokens", "attention_masked", "attention_visible")
LOGGING = ("RuntimeInfoHook", "LogAveragesHook", "IterTimerHook", "LoggerHook")
SAMPLE = 200


def prepared_runner(folder: Path) -> Any:
    """A runner of a toy pretraining whose training has begun, with nothing but its logging hooks."""
    for index in range(4):
        Image.new("RGB", (40, 40), (60 * index, 0, 0)).save(folder / f"{index}.png")
    options: dict[str, Any] = {
        "data_root": str(folder),
        "model.backbone": TOY,
        "model.head": dict(prototypes=8, hidden_dim=8, bottleneck_dim=4),
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "work_dir": str(folder / "run"),
        "log_level": "ERROR",
    }
    keys = {key if key == "data_root" else f"+{key}": value for key, value in options.items()}
    runner = build_runner(load_config(ROOT / "configs/_base_/mst_pretrain.py", keys))
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.train_loop.max_iters = 10**9
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner._hooks = [hook for hook in runner.hooks if type(hook).__name__ in LOGGING]
    for name in ("before_run", "before_train", "before_train_epoch"):
        runner.call_hook(name)
    return runner


def step(runner: Any, values: torch.Tensor) -> None:
    """What the loop and the teacher's hook do for the log in one step."""
    iteration = runner.train_loop._iter
    runner.call_hook("before_train_iter", batch_idx=iteration, data_batch=None)
    outputs = dict(zip(NAMES, values, strict=True))
    scalars = {"train/grad_norm": 1.5, "train/momentum": 0.99, "train/teacher_temperature": 0.04}
    runner.message_hub.update_scalars(scalars)
    runner.call_hook("after_train_iter", batch_idx=iteration, data_batch=None, outputs=outputs)
    runner.train_loop._iter += 1


def log_bytes(runner: Any) -> int:
    """Of the log in a checkpoint."""
    stream = io.BytesIO()
    torch.save(runner.message_hub.state_dict(), stream)
    return len(stream.getvalue())


def main() -> None:
    """Drive to every mark, measure there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at", type=int, nargs="+", default=[1_000, 400_000])
    parser.add_argument("--old", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        runner, values = prepared_runner(Path(folder)), torch.rand(len(NAMES))
        for mark in sorted(args.at):
            if args.old:
                step(runner, values)
                scalars = runner.message_hub.log_scalars
                for name in list(scalars):
                    scalars[name] = HistoryBuffer(np.ones(mark), np.ones(mark))
                runner.train_loop._iter = mark
            while runner.train_loop._iter < mark:
                step(runner, values)
            times = []
            for _ in range(SAMPLE):
                begin = time.perf_counter()
                step(runner, values)
                times.append(1000 * (time.perf_counter() - begin))
            found[str(mark)] = {
                "ms_per_step": round(statistics.median(times), 4),
                "log_bytes": log_bytes(runner),
            }
    print(json.dumps({"benchmark": "log_growth", "at_iteration": found, "steps_sampled": SAMPLE}))


if __name__ == "__main__":
    main()
