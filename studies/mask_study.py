"""Does hiding what the teacher attends to least help? MST's masks and decoder compared on real photographs.

    MST_REAL_DATA=DIR python studies/mask_study.py --cpu --jobs 2 --out work_dirs/mask_study --minutes 120
    MST_REAL_DATA=DIR python studies/mask_study.py --gpu --out work_dirs/mask_study_gpu --minutes 10

Resumable: run the same command again until it says that nothing is left; ``--report`` only writes the table of what
is there. DIR holds tiny-imagenet-100 (WebDataset shards) and camvid-as-cityscapes. Pretraining sees Tiny-ImageNet's
train photos alone, so no frame of CamVid and no val photo.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

from mst_pretrain.checkpoints.storage import INITIAL, LATEST, load_checkpoint, save_atomic
from mst_pretrain.runtime.atomic import write_json
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError, run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from studies.parts.arms import ALL, CPU, MIN_HIDDEN, Arm
from studies.parts.cost import measure
from studies.parts.jobs import FINISHED, Jobs, add_study_arguments
from studies.parts.readouts import Evaluation
from studies.parts.report import ReadOut, write_report

ROOT = Path(__file__).parents[1]
SEEDS = (1, 2, 3)
READOUT, COST = "readout.pth", "cost.json"
RANDOM, PIXELS, PRIOR = "random weights", "raw pixels", "position prior"


class Study:
    """All runs of one preset below one folder.

    Args:
        preset: ``cpu`` or ``gpu``.
        data: Folder of the real photos.
        out: Everything is written below it.
        options: More ``--cfg-options`` for every run, e.g. a shorter length to try the whole.
        jobs: Pretraining runs at a time, which share the cores evenly.
    """

    def __init__(self, preset: str, data: Path, out: Path, options: list[str], jobs: int = 1) -> None:
        self.config = ROOT / f"studies/configs/mask_{preset}.py"
        self.data, self.out, self.options = data, out, options
        self.jobs = Jobs(jobs)
        cfg = load_config(self.config)
        side = cfg.model.backbone.img_size // cfg.model.backbone.patch_size
        self.tokens = side * side
        arms = CPU if preset == "cpu" else ALL
        self.arms = [arm for arm in arms if arm.comparable(self.tokens)]
        self.left_out = [arm for arm in arms if not arm.comparable(self.tokens)]
        self.size, self.patch = cfg.model.backbone.img_size, cfg.model.backbone.patch_size
        self.length = (
            f"{cfg.train_cfg.max_epochs} epochs of {Path(cfg.data_root).name} in batches of "
            f"{cfg.train_dataloader.batch_size}{''.join(f', {option}' for option in options)}"
        )
        self.shards = data / "tiny-imagenet-100" / Path(cfg.data_root).name
        self.device = "cuda" if preset == "gpu" else "cpu"
        self.evaluation: Evaluation | None = None
        self.one_at_a_time = threading.Lock()

    def run(self, deadline: float) -> bool:
        """Everything not done yet, until the deadline (``time.monotonic``); whether all is done."""
        for arm in self.left_out:
            print(
                f"not run: {arm.name} hides {arm.hidden(self.tokens):.1f} of {self.tokens} tokens, fewer than "
                f"{MIN_HIDDEN}: no comparison"
            )
        if not (self.out / COST).exists():
            write_json(measure(self.config), self.out / COST)
        plan = [(seed, arm) for seed in SEEDS for arm in self.arms]

        def step(place: int, seed: int, arm: Arm) -> bool:
            if time.monotonic() > deadline and not self.pretrained(arm, seed):
                return False
            print(f"[{place}/{len(plan)}] {arm.name}, seed {seed}", flush=True)
            if not self.pretrain(arm, seed, deadline):
                return False
            with self.one_at_a_time:
                self.read_out(arm, seed)
            return True

        return self.jobs.run([partial(step, place, seed, arm) for place, (seed, arm) in enumerate(plan, 1)])

    def pretrained(self, arm: Arm, seed: int) -> bool:
        """Whether its run has ended."""
        return (self.work_dir(arm, seed) / FINISHED).exists()

    def work_dir(self, arm: Arm, seed: int) -> Path:
        """Of one run."""
        return self.out / arm.folder / f"seed{seed}"

    def pretrain(self, arm: Arm, seed: int, deadline: float) -> bool:
        """One run, or the rest of it; False when the time is up first."""
        work_dir = self.work_dir(arm, seed)
        options = [f"data_root={self.shards}", f"randomness.seed={seed}", *arm.cfg_options(), *self.options]
        return self.jobs.once(
            "train", [str(self.config), "--resume", "--cfg-options", *options], work_dir, deadline
        )

    def read_out(self, arm: Arm, seed: int) -> None:
        """Evaluate one finished run, the random weights it started from once per seed, and the baselines once."""
        work_dir = self.work_dir(arm, seed)
        wanted = {
            work_dir: lambda e: e.of_checkpoint(work_dir / LATEST, seed),
            self.out / RANDOM / f"seed{seed}": lambda e: e.of_checkpoint(work_dir / INITIAL, seed),
            self.out / PIXELS / "seed0": lambda e: e.of_pixels(),
            self.out / PRIOR / "seed0": lambda e: e.of_position_prior(),
        }
        for folder, evaluate in wanted.items():
            if not (folder / READOUT).exists():
                self.evaluation = self.evaluation or Evaluation(
                    self.data, self.shards, self.size, self.patch, self.device
                )
                save_atomic(vars(evaluate(self.evaluation)), folder / READOUT)

    def report(self, command: str) -> str:
        """Write ``report.md``, ``report.json`` and ``report.png`` of what is there."""
        names = {arm.folder: arm.name for arm in self.arms} | {name: name for name in (RANDOM, PIXELS, PRIOR)}
        arms = {
            name: {
                int(path.parent.name.removeprefix("seed")): ReadOut(**load_checkpoint(path))
                for path in sorted((self.out / folder).glob(f"seed*/{READOUT}"))
            }
            for folder, name in names.items()
        }
        hidden = {arm.name: arm.hidden(self.tokens) for arm in self.arms}
        realised = {arm.name: self.realised(arm) for arm in self.arms}
        left_out = [f"{arm.name} ({arm.hidden(self.tokens):.1f} tokens)" for arm in self.left_out]
        cost = json.loads((self.out / COST).read_text()) if (self.out / COST).exists() else None
        return write_report(self.out, arms, hidden, realised, left_out, cost, self.length, command)

    def realised(self, arm: Arm) -> float | None:
        """Hidden tokens per view as the training logged them, mean over all its lines."""
        counts = [
            json.loads(line).get("masked_tokens")
            for path in sorted(self.out.glob(f"{arm.folder}/seed*/*/vis_data/scalars.json"))
            for line in path.read_text().splitlines()
        ]
        known = [count for count in counts if count is not None]
        return sum(known) / len(known) if known else None


def main() -> None:
    """Parse, run until the time is up, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    preset = parser.add_mutually_exclusive_group(required=True)
    preset.add_argument("--cpu", action="store_const", const="cpu", dest="preset")
    preset.add_argument("--gpu", action="store_const", const="gpu", dest="preset")
    add_study_arguments(parser)
    args = parser.parse_args()
    data = os.environ.get("MST_REAL_DATA")
    if data is None or not Path(data).is_dir():
        raise UserError("MST_REAL_DATA names no folder. Set it to where the real photos are.")
    study = Study(args.preset, Path(data).resolve(), args.out.resolve(), args.cfg_options, args.jobs)
    if not args.report:
        done = study.run(time.monotonic() + 60 * args.minutes)
        print("nothing is left" if done else "time is up: run the same command again")
    print(study.report(" ".join(["python", *(word for word in sys.argv if word != "--report")])))


if __name__ == "__main__":
    run_cli(main)
