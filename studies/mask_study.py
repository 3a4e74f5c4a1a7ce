"""Does hiding what the teacher attends to least help? MST's masks and decoder compared on real photographs.

    MST_REAL_DATA=DIR python studies/mask_study.py --jobs 2 --out work_dirs/mask_study

Resumable: run the same command again until it says that nothing is left; ``--report`` only writes the table of what
is there. DIR holds tiny-imagenet-100 (WebDataset shards) and camvid-as-cityscapes. Pretraining sees Tiny-ImageNet's
train photos alone, so no frame of CamVid and no val photo.
"""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from pathlib import Path

from mst_pretrain.checkpoints.storage import INITIAL, LATEST, load_checkpoint, save_atomic
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from studies.parts.arms import ARMS, Arm
from studies.parts.jobs import Jobs, parse_study
from studies.parts.readouts import Evaluation
from studies.parts.report import ReadOut, write_report

CONFIG = Path(__file__).with_name("configs") / "mask_cpu.py"
SEEDS = (1, 2, 3)
READOUT = "readout.pth"
RANDOM, PIXELS, PRIOR = "random weights", "raw pixels", "position prior"


class Study:
    """All runs below one folder.

    Args:
        data: Folder of the real photos.
        out: Everything is written below it.
        options: More ``--cfg-options`` for every run, e.g. a shorter length to try the whole.
        jobs: Pretraining runs at a time, which share the cores evenly.
    """

    def __init__(self, data: Path, out: Path, options: list[str], jobs: int = 1) -> None:
        self.data, self.out, self.options = data, out, options
        self.jobs = Jobs(jobs)
        cfg = load_config(CONFIG)
        self.size, self.patch = cfg.model.backbone.img_size, cfg.model.backbone.patch_size
        self.tokens = (self.size // self.patch) ** 2
        self.length = (
            f"{cfg.train_cfg.max_epochs} epochs of {Path(cfg.data_root).name} in batches of "
            f"{cfg.train_dataloader.batch_size}{''.join(f', {option}' for option in options)}"
        )
        self.shards = data / "tiny-imagenet-100" / Path(cfg.data_root).name
        self.evaluation: Evaluation | None = None
        self.one_at_a_time = threading.Lock()

    def run(self) -> None:
        """Do everything that is not done yet."""
        plan = [(seed, arm) for seed in SEEDS for arm in ARMS]

        def step(place: int, seed: int, arm: Arm) -> None:
            print(f"[{place}/{len(plan)}] {arm.name}, seed {seed}", flush=True)
            self.pretrain(arm, seed)
            with self.one_at_a_time:
                self.read_out(arm, seed)

        self.jobs.run([partial(step, place, seed, arm) for place, (seed, arm) in enumerate(plan, 1)])

    def work_dir(self, arm: Arm, seed: int) -> Path:
        """Of one run."""
        return self.out / arm.folder / f"seed{seed}"

    def pretrain(self, arm: Arm, seed: int) -> None:
        """One run, or the rest of it."""
        options = [f"data_root={self.shards}", f"randomness.seed={seed}", *arm.cfg_options(), *self.options]
        arguments = [str(CONFIG), "--resume", "--cfg-options", *options]
        self.jobs.once("train", arguments, self.work_dir(arm, seed))

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
                self.evaluation = self.evaluation or Evaluation(self.data, self.shards, self.size, self.patch)
                save_atomic(vars(evaluate(self.evaluation)), folder / READOUT)

    def report(self, command: str) -> str:
        """Write ``report.md``, ``report.json`` and ``report.png`` of what is there."""
        names = {arm.folder: arm.name for arm in ARMS} | {name: name for name in (RANDOM, PIXELS, PRIOR)}
        arms = {
            name: {
                int(path.parent.name.removeprefix("seed")): ReadOut(**load_checkpoint(path))
                for path in sorted((self.out / folder).glob(f"seed*/{READOUT}"))
            }
            for folder, name in names.items()
        }
        hidden = {arm.name: arm.hidden(self.tokens) for arm in ARMS}
        realised = {arm.name: self.realised(arm) for arm in ARMS}
        return write_report(self.out, arms, hidden, realised, self.length, command)

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
    """Parse, run, report."""
    args, data, command = parse_study(__doc__)
    study = Study(data, args.out.resolve(), args.cfg_options, args.jobs)
    if not args.report:
        study.run()
        print("nothing is left")
    print(study.report(command))


if __name__ == "__main__":
    run_cli(main)
