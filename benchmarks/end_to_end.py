"""From files to steps: images per second of the loader, of the step, and of both, and how long the step waits.

    python benchmarks/end_to_end.py DATA [--draw 4096] [--config configs/pretrain/mst_deit-s_8xb128-300e_in1k.py]
        [--batch 128] [--workers 16] [--dtype float32|bfloat16] [--steps 20] [--cfg-options KEY=VALUE ...]

DATA is what ``data_root`` takes. ``--draw N`` first writes N photographs into that folder. The option
train_dataloader.dataset.decode=device decodes and cuts on the GPU. The first steps, in which workers start and kernels
are chosen, are not counted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, default_collate

from mst_pretrain.data.device_batches import collate_for_device, crops_of
from mst_pretrain.data.sampler import ResumableSampler
from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.loader import photograph
from benchmarks.pretrain_step import CONFIG, DTYPES, step_of
from benchmarks.timing import publish, wait

WARM = 3


def main(argv: list[str] | None = None) -> None:
    """Time the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument(
        "--draw", type=int, default=0, metavar="N", help="write N photographs of 500 x 375 first"
    )
    parser.add_argument("--config", default=str(CONFIG))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    MMLogger.get_instance("mmengine", log_level="WARNING")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for number in range(args.draw):
        Path(args.data).mkdir(parents=True, exist_ok=True)
        Path(args.data, f"{number}.jpg").write_bytes(photograph(number, 500, 375))
    options = dict(option.split("=", 1) for option in args.cfg_options)
    cfg = load_config(args.config, read_options(args.config, options))
    kept = options.get(
        "train_dataloader.dataset.cache", "none"
    )  # else the second pass would find pixels in memory
    wanted = {
        **cfg.train_dataloader.dataset,
        "cache": kept,
        "data_root": args.data,
        "seed": 0,
        "type": "UnlabelledImages",
    }
    dataset = DATASETS.build(wanted)
    step = step_of(cfg, args.batch, device, args.dtype)

    def batches() -> Iterator[Any]:
        """Without an end."""
        loader = DataLoader(
            dataset,
            batch_size=args.batch,
            sampler=ResumableSampler(dataset, seed=0),
            num_workers=args.workers,
            pin_memory=device.type == "cuda",
            collate_fn=collate_for_device if dataset.on_device else default_collate,
        )
        for batch in crops_of(loader, device, lambda why: print(why, file=sys.stderr)):
            del batch["faults"], batch["index"]
            yield batch

    def timed(source: Iterator[Any], work: bool) -> tuple[float, float]:
        """Seconds a step, and the share of them that goes by until a batch is there."""
        waited, began = 0.0, 0.0
        for number in range(WARM + args.steps):
            if number == WARM:
                wait(device)
                waited, began = 0.0, time.perf_counter()
            asked = time.perf_counter()
            step.data = next(source)
            waited += time.perf_counter() - asked
            if work:
                step()
        wait(device)
        seconds = time.perf_counter() - began
        return seconds / args.steps, waited / seconds

    rows = []
    for name, source, work in (
        ("step", itertools.repeat(step.data), True),
        ("loader", batches(), False),
        ("both", batches(), True),
    ):
        seconds, share = timed(source, work)
        images = round(args.batch / seconds, 1)
        rows.append(
            {"what": name, "seconds": round(seconds, 4), "images/s": images, "waiting": round(share, 3)}
        )
    publish("end_to_end", rows, device, **vars(args))


if __name__ == "__main__":
    run_cli(main)
