"""Does hiding what the teacher attends to least help? MST's masks and decoder compared on real photographs.

    MST_REAL_DATA=DIR python benchmarks/mask_study.py --cpu --out work_dirs/mask_study --minutes 120
    MST_REAL_DATA=DIR python benchmarks/mask_study.py --gpu --out work_dirs/mask_study_gpu --minutes 10

Resumable: run the same command again until it says that nothing is left; ``--report`` only writes the table of what
is there. DIR holds tiny-imagenet-100 (WebDataset shards) and camvid-as-cityscapes. Pretraining sees Tiny-ImageNet's
train photos alone, so no frame of CamVid and no val photo.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mst_pretrain.checkpoint_io import LATEST, save_atomic
from mst_pretrain.config import load_config
from mst_pretrain.errors import UserError, run_cli

sys.path.insert(0, str(Path(__file__).parent))
from study.arms import ALL, CPU, MIN_HIDDEN, Arm
from study.readouts import Evaluation
from study.report import write_report

ROOT = Path(__file__).parents[1]
SEEDS = (1, 2, 3)


class Study:
    """All runs of one preset below one folder.

    Args:
        preset: ``cpu`` or ``gpu``.
        data: Folder of the real photos.
        out: Everything is written below it.
        options: More ``--cfg-options`` for every run, e.g. a shorter length to try the whole.
    """

    def __init__(self, preset: str, data: Path, out: Path, options: list[str]) -> None:
        self.config = ROOT / f"configs/study/{preset}.py"
        self.data, self.out, self.options = data, out, options
        cfg = load_config(self.config)
        side = cfg.model.backbone.img_size // cfg.model.backbone.patch_size
        self.tokens = side * side
        arms = CPU if preset == "cpu" else ALL
        self.arms = [arm for arm in arms if arm.comparable(self.tokens)]
        self.left_out = [arm for arm in arms if not arm.comparable(self.tokens)]
        self.shards = data / "tiny-imagenet-100" / Path(cfg.data_root).name

    def run(self, deadline: float) -> bool:
        """Everything not done yet, until the deadline (``time.monotonic``); whether all is done."""
        for arm in self.left_out:
            print(
                f"not run: {arm.name} hides {arm.hidden(self.tokens):.1f} of {self.tokens} tokens, fewer than "
                f"{MIN_HIDDEN}: no comparison"
            )
        plan = [(seed, arm) for seed in SEEDS for arm in self.arms]
        for place, (seed, arm) in enumerate(plan, 1):
            print(f"[{place}/{len(plan)}] {arm.name}, seed {seed}", flush=True)
            if not self.pretrain(arm, seed, deadline):
                return False
            self.read_out(arm, seed)
        return True

    def work_dir(self, arm: Arm, seed: int) -> Path:
        """Of one run."""
        return self.out / arm.folder / f"seed{seed}"

    def pretrain(self, arm: Arm, seed: int, deadline: float) -> bool:
        """One run, or the rest of it; False when the time is up first."""
        work_dir = self.work_dir(arm, seed)
        if (work_dir / "readout.pth").exists() or (work_dir / "finished").exists():
            return True
        pairs = [f"{key}={value}" for key, value in self.flat_options(arm).items()]
        command = [
            sys.executable,
            "tools/train.py",
            str(self.config),
            "--resume",
            "--work-dir",
            str(work_dir),
        ]
        command += ["--cfg-options", f"data_root={self.shards}", f"randomness.seed={seed}"]
        command += [*pairs, *self.options]
        work_dir.mkdir(parents=True, exist_ok=True)
        with open(work_dir / "train.log", "a") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            try:
                code = process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
                return False
        if code:
            raise UserError(f"pretraining ended with code {code}. See {work_dir / 'train.log'}.")
        (work_dir / "finished").touch()
        return True

    @staticmethod
    def flat_options(arm: Arm) -> dict[str, Any]:
        """The arm's options as ``--cfg-options`` takes them, one scalar each."""
        flat: dict[str, Any] = {}
        for key, value in arm.options().items():
            if isinstance(value, dict):
                flat |= {f"+{key}.{name}": item for name, item in value.items()}
            else:
                flat[key] = value
        return flat

    def read_out(self, arm: Arm, seed: int) -> None:
        """Evaluate one finished run, and the random weights it started from once per seed."""
        evaluation = None
        targets = [
            (self.work_dir(arm, seed) / LATEST, self.work_dir(arm, seed) / "readout.pth"),
            (
                self.work_dir(arm, seed) / "initial.pth",
                self.out / "random weights" / f"seed{seed}" / "readout.pth",
            ),
        ]
        for checkpoint, target in targets:
            if not target.exists():
                evaluation = evaluation or Evaluation(self.config, self.data, self.shards)
                save_atomic(evaluation.of_checkpoint(checkpoint, seed).state(), target)
        if not (self.out / "raw pixels" / "readout.pth").exists():
            evaluation = evaluation or Evaluation(self.config, self.data, self.shards)
            save_atomic(evaluation.of_pixels().state(), self.out / "raw pixels" / "readout.pth")
            save_atomic(evaluation.of_position_prior().state(), self.out / "position prior" / "readout.pth")


def main() -> None:
    """Parse, run until the time is up, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    preset = parser.add_mutually_exclusive_group(required=True)
    preset.add_argument("--cpu", action="store_const", const="cpu", dest="preset")
    preset.add_argument("--gpu", action="store_const", const="gpu", dest="preset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so long; run again to go on"
    )
    parser.add_argument("--report", action="store_true", help="only write the report of what is there")
    parser.add_argument("--cfg-options", nargs="*", default=[], help="for every run, KEY=VALUE")
    args = parser.parse_args()
    data = os.environ.get("MST_REAL_DATA")
    if data is None or not Path(data).is_dir():
        raise UserError("MST_REAL_DATA names no folder. Set it to where the real photos are.")
    study = Study(args.preset, Path(data).resolve(), args.out, args.cfg_options)
    if not args.report:
        done = study.run(time.monotonic() + 60 * args.minutes)
        print("nothing is left" if done else "time is up: run the same command again")
    write_report(study.out, study.arms, study.left_out, study.tokens, " ".join(sys.argv))


if __name__ == "__main__":
    run_cli(main)
