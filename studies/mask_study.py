"""Does hiding what the teacher attends to least help? MST's masks and decoder compared on real photographs.

    MST_REAL_DATA=DIR python studies/mask_study.py --jobs 2 --out work_dirs/mask_study
    MST_REAL_DATA=DIR python studies/mask_study.py --preset gpu --jobs 4 --out work_dirs/mask_study_gpu

Resumable: run the same command again until it says that nothing is left; ``--report`` only writes the table of what
is there. DIR holds tiny-imagenet-100 (WebDataset shards) and camvid-as-cityscapes. ``--photos TRAIN VAL`` takes the
labelled photos from elsewhere: folders of class folders, or whatever else ``data_root`` names. Pretraining sees the
train photos alone, so no frame of CamVid and no val photo. The presets are described in studies/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mst_pretrain.checkpoints.storage import INITIAL, load_checkpoint, save_atomic
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import run_cli
from mst_pretrain.runtime.run_files import LATEST

sys.path.insert(0, str(Path(__file__).parents[1]))
from studies.parts.arms import ARMS, GPU_ARMS, Arm
from studies.parts.jobs import Jobs, parse_study
from studies.parts.readouts import Evaluation
from studies.parts.report import ReadOut, write_report

CONFIGS = Path(__file__).with_name("configs")
READOUT = "readout.pth"
RANDOM, PIXELS, PRIOR = "random weights", "raw pixels", "position prior"


@dataclass(frozen=True)
class Preset:
    """What is compared, and how large.

    Attributes:
        config: Of every run.
        arms: One run each for every seed.
        seeds: Of the runs.
    """

    config: Path
    arms: list[Arm]
    seeds: tuple[int, ...]


PRESETS = {
    "cpu": Preset(CONFIGS / "mask_cpu.py", ARMS, (1, 2, 3)),
    "gpu": Preset(CONFIGS / "mask_gpu.py", GPU_ARMS, (1,)),
}


class Study:
    """All runs below one folder.

    Args:
        data: Folder of the real photos.
        out: Everything is written below it.
        options: More ``--cfg-options`` for every run, e.g. a shorter length to try the whole.
        jobs: Pretraining runs at a time, which share the cores evenly.
        preset: What is compared.
        photos: Labelled train and val photos, each as ``data_root`` takes them; None: the shards in ``data``.
    """

    def __init__(
        self,
        data: Path,
        out: Path,
        options: list[str],
        jobs: int = 1,
        preset: Preset = PRESETS["cpu"],
        photos: list[str] | None = None,
    ) -> None:
        self.data, self.out, self.options, self.preset = data, out, options, preset
        self.jobs = Jobs(jobs)
        cfg = load_config(preset.config)
        shards = data / "tiny-imagenet-100"
        self.photos = photos or [str(shards / Path(cfg.data_root).name), str(shards / "val-0000.tar")]
        self.size, self.patch = cfg.model.backbone.img_size, cfg.model.backbone.patch_size
        self.tokens = (self.size // self.patch) ** 2
        length = cfg.train_cfg
        iterations = (
            f"{length.max_iters} steps" if length.max_epochs is None else f"{length.max_epochs} epochs"
        )
        self.length = (
            f"{iterations} of {Path(self.photos[0]).name} in batches of "
            f"{cfg.train_dataloader.batch_size}{''.join(f', {option}' for option in options)}"
        )
        self.evaluation: Evaluation | None = None
        self.one_at_a_time = threading.Lock()

    def run(self) -> None:
        """Do everything that is not done yet."""
        plan = [(seed, arm) for seed in self.preset.seeds for arm in self.preset.arms]

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
        options = [
            f"data_root={self.photos[0]}",
            f"randomness.seed={seed}",
            *arm.cfg_options(),
            *self.options,
        ]
        arguments = [str(self.preset.config), "--resume", "--cfg-options", *options]
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
                self.evaluation = self.evaluation or Evaluation(self.data, self.photos, self.size, self.patch)
                save_atomic(vars(evaluate(self.evaluation)), folder / READOUT)

    def report(self, command: str) -> str:
        """Write ``report.md``, ``report.json`` and ``report.png`` of what is there."""
        names = {arm.folder: arm.name for arm in self.preset.arms} | {
            name: name for name in (RANDOM, PIXELS, PRIOR)
        }
        arms = {
            name: {
                int(path.parent.name.removeprefix("seed")): ReadOut(**load_checkpoint(path))
                for path in sorted((self.out / folder).glob(f"seed*/{READOUT}"))
            }
            for folder, name in names.items()
        }
        hidden = {arm.name: arm.hidden(self.tokens) for arm in self.preset.arms}
        realised = {arm.name: self.realised(arm) for arm in self.preset.arms}
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this study takes beside every study's arguments."""
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="what is compared (default cpu)")
    parser.add_argument("--photos", nargs=2, metavar=("TRAIN", "VAL"), help="labelled photos of 64 px")


def main() -> None:
    """Parse, run, report."""
    args, data, command = parse_study(__doc__, add=add_arguments)
    preset = PRESETS[args.preset]
    study = Study(data, args.out.resolve(), args.cfg_options, args.jobs, preset, args.photos)
    if not args.report:
        study.run()
        print("nothing is left")
    print(study.report(command))


if __name__ == "__main__":
    run_cli(main)
