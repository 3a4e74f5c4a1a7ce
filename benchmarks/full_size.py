"""Two iterations of every full-size COCO and Cityscapes config on real data, through tools/train.py.

One JSON line per config: input shapes, ground truth, matched keys, peak memory, seconds per iteration, losses. The data
are ``coco-mini`` and ``camvid-as-cityscapes`` below $MST_REAL_DATA, or what --coco and --cityscapes name. Weights are
timm's random ones in a file written for the purpose, or a row's with --init.

    python benchmarks/full_size.py [CONFIG ...] [--amp] [--out full_size.jsonl] [--cfg-options KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import timm

from mst_pretrain.checkpoints.storage import save_safetensors
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_toolkit.resources import child_environment

ROOT = Path(__file__).resolve().parent.parent
STEP = re.compile(
    r"Step (\d+): input (.+?); (?:(\d+ (?:ground-truth objects|labelled pixels)); )?loss ([\d.naif]+); "
    r"weights moved by (\S+) \(L2\); peak memory ([\d.]+) GiB"
)
SECONDS = re.compile(r"(?:Iter|Epoch)\(train\).*\[\s*(\d+)/\d+\].* time: ([\d.]+)")
MATCHED = re.compile(r"(\w+) from (\S+): (all \d+ keys matched.*)")


def read_log(text: str) -> dict[str, Any]:
    """What tools/train.py printed of the first iterations.

    Raises:
        UserError: It has no iteration.
    """
    steps = STEP.findall(text)
    if not steps:
        raise UserError(f"no iteration was logged:\n{text[-2000:]}")
    seconds = {int(number): float(value) for number, value in SECONDS.findall(text)}
    matched = MATCHED.search(text)
    return {
        "input": [step[1] for step in steps],
        "ground_truth": [step[2] for step in steps],
        "matched": f"{matched[1]}: {matched[3]}" if matched else None,
        "loss": [float(step[3]) for step in steps],
        "weights_moved": [float(step[4]) for step in steps],
        "peak_memory_gib": float(steps[-1][5]),
        "seconds_per_iteration": [seconds.get(int(step[0])) for step in steps],
    }


def options_of(config: Path, args: argparse.Namespace, weights: dict[str, Path]) -> list[str]:
    """``--cfg-options`` of one config: the data, two iterations, nothing written, the weights."""
    cfg = load_config(config)
    detection = cfg.default_scope == "mmdet"
    options = [
        f"data_root={args.coco if detection else args.cityscapes}",
        f"train_cfg.max_iters={args.iters}",
        f"{'+' if 'val_begin' not in cfg.train_cfg else ''}train_cfg.val_begin=1000000",
        "train_dataloader.num_workers=0",
        "log_processor.window_size=1",  # each iteration's own time
        "default_hooks.logger.interval=1",
        "default_hooks.checkpoint.interval=1000000",
        "+default_hooks.checkpoint.save_last=False",
        f"+default_hooks.first_steps.steps={args.iters}",
    ]
    if not args.init:
        options += [f"model.backbone.init_cfg.checkpoint={weights[cfg.model.backbone.model]}"]
        options += ["model.backbone.init_cfg.prefix="]
    return [*options, *args.cfg_options]


def measure(config: Path, args: argparse.Namespace, weights: dict[str, Path], work: Path) -> dict[str, Any]:
    """Run one config in a process of its own and read its log.

    Raises:
        UserError: It failed.
    """
    command = [
        sys.executable,
        str(ROOT / "tools/train.py"),
        str(config),
        "--work-dir",
        str(work / config.stem),
    ]
    command += (["--init", args.init] if args.init else []) + (["--amp"] if args.amp else [])
    command += ["--cfg-options", *options_of(config, args, weights)]
    done = subprocess.run(command, env=child_environment(ROOT), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{config} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-3000:]}")
    return {
        "config": config.stem,
        "amp": args.amp,
        "weights": args.init or "random, from a file",
        "options": args.cfg_options,
        **read_log(done.stdout + done.stderr),
        **environment_info(),
    }


def main(argv: list[str] | None = None) -> None:
    """Every config, one line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "configs", nargs="*", type=Path, help="default: every configs/{coco,cityscapes}/*_mst*.py"
    )
    real = Path(os.environ.get("MST_REAL_DATA", "."))
    parser.add_argument("--coco", type=Path, default=real / "coco-mini")
    parser.add_argument("--cityscapes", type=Path, default=real / "camvid-as-cityscapes")
    parser.add_argument("--init", metavar="ROW", help="a row's weights instead of random ones")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--iters", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append the lines to this file")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for every config")
    args = parser.parse_args(argv)
    configs = args.configs or sorted(
        path for folder in ("coco", "cityscapes") for path in (ROOT / "configs" / folder).glob("*_mst*.py")
    )
    with tempfile.TemporaryDirectory() as folder:
        weights = {}
        for name in ("vit_small_patch16_224", "swin_tiny_patch4_window7_224"):
            weights[name] = Path(folder, f"{name}.safetensors")
            save_safetensors(timm.create_model(name, num_classes=0).state_dict(), weights[name])
        for config in configs:
            line = json.dumps(measure(config, args, weights, Path(folder)))
            print(line, flush=True)
            if args.out:
                with open(args.out, "a", encoding="utf-8") as stream:
                    stream.write(line + "\n")


if __name__ == "__main__":
    run_cli(main)
