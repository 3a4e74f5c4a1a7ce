"""Does pretraining on street frames help to segment them? UperNet on CamVid from random, DINO and MST weights.

    MST_REAL_DATA=DIR python studies/street_scenes.py --out work_dirs/street_scenes --jobs 2 [--minutes 60]

Per seed: DINO and MST of equal length on the train frames of DIR/camvid-as-cityscapes alone
(studies/configs/street_pretrain.py), then UperNet on the same frames (studies/configs/street_upernet.py) from the
random weights that MST began with, from DINO's and from MST's; nothing but the checkpoint's path differs. Tested on
the val and on the test frames.

Resumable: run the same command again until it says that nothing is left; ``--report`` only writes the tables of what is
there: OUT/report.md and OUT/report.json. A comparison whose runs were not alike is refused.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path

from mst_pretrain.checkpoints.storage import INITIAL, LATEST
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_transfer.comparison.rows import INIT_CFG
from mst_transfer.data.pair_rules import check_cityscapes

sys.path.insert(0, str(Path(__file__).parents[1]))
from studies.parts.arms import DINO, MST, Arm
from studies.parts.jobs import FINISHED, Jobs, add_study_arguments
from studies.parts.street_report import PRETRAIN, SPLIT, UPERNET, Results, write_report

SEEDS = (1, 2, 3)
SPLITS = ("val", "test")
PRETRAINED = {"DINO": DINO, "MST": MST}
# Row of the table: whose pretraining, and which of its checkpoints.
WEIGHTS = {"random": (MST, INITIAL), "DINO": (DINO, LATEST), "MST": (MST, LATEST)}


class StreetScenes:
    """All runs below one folder.

    Args:
        data: Folder in Cityscapes' layout with the splits train, val and test.
        out: Everything is written below it.
        options: More ``--cfg-options`` for every run, e.g. a shorter length to try the whole.
        jobs: Runs at a time, which share the cores evenly.
    """

    def __init__(self, data: Path, out: Path, options: list[str], jobs: int = 1) -> None:
        self.data, self.out, self.options, self.jobs = data, out, options, Jobs(jobs)

    def run(self, deadline: float) -> bool:
        """Everything not done yet, until the deadline (``time.monotonic``); whether all is done.

        Raises:
            UserError: The data are not there, or a run failed.
        """
        for split in ("train", *SPLITS):
            check_cityscapes(self.data, split)
        for seed in SEEDS:
            for stage in (
                [partial(self.pretrain, arm, seed, deadline) for arm in PRETRAINED.values()],
                [partial(self.fine_tune, row, seed, deadline) for row in WEIGHTS],
            ):
                if not self.jobs.run(stage):
                    return False
        return True

    def pretrained(self, arm: Arm, seed: int) -> Path:
        """Work directory of a pretraining."""
        return self.out / "pretrain" / arm.folder / f"seed{seed}"

    def fine_tuned(self, row: str, seed: int) -> Path:
        """Work directory of a fine-tuning; its tests are below it."""
        return self.out / "upernet" / row.lower() / f"seed{seed}"

    def once(self, tool: str, arguments: list[str], folder: Path, deadline: float) -> bool:
        """Say what is done, and do it unless it has been done or the time is up."""
        if not (folder / FINISHED).exists():
            if time.monotonic() > deadline:
                return False
            print(f"{tool}: {folder.relative_to(self.out)}", flush=True)
        return self.jobs.once(tool, arguments, folder, deadline)

    def pretrain(self, arm: Arm, seed: int, deadline: float) -> bool:
        """One run on the train frames, or the rest of it; False when the time is up first."""
        options = [f"data_root={self.data / 'leftImg8bit/train'}", f"randomness.seed={seed}"]
        options += [*arm.cfg_options(), *self.options]
        arguments = [str(PRETRAIN), "--resume", "--cfg-options", *options]
        return self.once("train", arguments, self.pretrained(arm, seed), deadline)

    def fine_tune(self, row: str, seed: int, deadline: float) -> bool:
        """UperNet from one row's weights, then its tests; False when the time is up first."""
        arm, checkpoint = WEIGHTS[row]
        folder, data = self.fine_tuned(row, seed), f"data_root={self.data}"
        options = [data, f"randomness.seed={seed}", *self.options]
        options += [f"{INIT_CFG}.checkpoint={self.pretrained(arm, seed) / checkpoint}"]
        if not self.once("train", [str(UPERNET), "--resume", "--cfg-options", *options], folder, deadline):
            return False
        for split in SPLITS:
            options = [data, *self.options]
            options += [
                f"{SPLIT}{key}={folder_name}/{split}"
                for key, folder_name in (("img_path", "leftImg8bit"), ("seg_map_path", "gtFine"))
            ]
            arguments = [str(UPERNET), str(folder / LATEST), "--cfg-options", *options]
            if not self.once("test", arguments, folder / split, deadline):
                return False
        return True

    def report(self, command: str) -> str:
        """Write ``report.md`` and ``report.json`` of what is there; the Markdown.

        Raises:
            UserError: The runs are no comparison.
        """
        done = [
            (row, seed)
            for seed in SEEDS
            for row in WEIGHTS
            if all((self.fine_tuned(row, seed) / split / FINISHED).exists() for split in SPLITS)
        ]
        if not done:
            return "no fine-tuning has been trained and tested yet: there is nothing to report"
        results = Results(
            data=self.data,
            rows=list(WEIGHTS),
            splits=SPLITS,
            fine_tuned={(row, seed): self.fine_tuned(row, seed) for row, seed in done},
            started_from={
                (row, seed): self.pretrained(WEIGHTS[row][0], seed) / WEIGHTS[row][1] for row, seed in done
            },
            pretrained={
                (name, seed): self.pretrained(arm, seed)
                for seed in sorted({seed for _, seed in done})
                for name, arm in PRETRAINED.items()
            },
        )
        return write_report(results, self.out, command)


def main(argv: list[str] | None = None) -> None:
    """Parse, run until the time is up, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study_arguments(parser)
    args = parser.parse_args(argv)
    data = Path(os.environ.get("MST_REAL_DATA", "."), "camvid-as-cityscapes")
    if not data.is_dir():
        raise UserError(f"{data} does not exist. Set MST_REAL_DATA to the folder that holds it.")
    study = StreetScenes(data.resolve(), args.out.resolve(), args.cfg_options, args.jobs)
    if not args.report:
        done = study.run(time.monotonic() + 60 * args.minutes)
        print("nothing is left" if done else "time is up: run the same command again")
    words = sys.argv[1:] if argv is None else argv
    command = " ".join(
        [
            "MST_REAL_DATA=DIR python studies/street_scenes.py",
            *(word for word in words if word != "--report"),
        ]
    )
    print(study.report(command))


if __name__ == "__main__":
    run_cli(main)
