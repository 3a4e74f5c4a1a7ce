"""Does pretraining on street frames help to segment them? UperNet on CamVid from random, DINO and MST weights.

    MST_REAL_DATA=DIR python studies/street_scenes.py --out work_dirs/street_scenes --jobs 2

Per seed: DINO and MST of equal length on the train frames of DIR/camvid-as-cityscapes alone
(studies/configs/street_pretrain.py), then UperNet on the same frames (studies/configs/street_upernet.py) from the
random weights that MST began with, from DINO's and from MST's; nothing but the checkpoint's path differs. Tested on
the val and on the test frames.

Resumable: run the same command again until it says that nothing is left; ``--report`` only writes the tables of what is
there: OUT/report.md and OUT/report.json. A comparison whose runs were not alike is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mst_pretrain.checkpoints.storage import INITIAL
from mst_pretrain.runtime.errors import run_cli
from mst_pretrain.runtime.run_files import LATEST
from mst_transfer.comparison.rows import INIT_CFG
from mst_transfer.data.pair_rules import check_cityscapes

sys.path.insert(0, str(Path(__file__).parents[1]))
from studies.parts.arms import DINO, MST, Arm
from studies.parts.jobs import FINISHED, Jobs, parse_study
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

    def run(self) -> None:
        """Do everything that is not done yet.

        Raises:
            UserError: The data are not there, or a run failed.
        """
        for split in ("train", *SPLITS):
            check_cityscapes(self.data, split)
        for seed in SEEDS:
            self.jobs.run([partial(self.pretrain, arm, seed) for arm in PRETRAINED.values()])
            self.jobs.run([partial(self.fine_tune, row, seed) for row in WEIGHTS])

    def pretrained(self, arm: Arm, seed: int) -> Path:
        """Work directory of a pretraining."""
        return self.out / "pretrain" / arm.folder / f"seed{seed}"

    def fine_tuned(self, row: str, seed: int) -> Path:
        """Work directory of a fine-tuning; its tests are below it."""
        return self.out / "upernet" / row.lower() / f"seed{seed}"

    def once(self, tool: str, arguments: list[str], folder: Path) -> None:
        """Say what is done, and do it unless it has been done."""
        if not (folder / FINISHED).exists():
            print(f"{tool}: {folder.relative_to(self.out)}", flush=True)
        self.jobs.once(tool, arguments, folder)

    def pretrain(self, arm: Arm, seed: int) -> None:
        """One run on the train frames, or the rest of it."""
        options = [f"data_root={self.data / 'leftImg8bit/train'}", f"randomness.seed={seed}"]
        options += [*arm.cfg_options(), *self.options]
        arguments = [str(PRETRAIN), "--resume", "--cfg-options", *options]
        self.once("train", arguments, self.pretrained(arm, seed))

    def fine_tune(self, row: str, seed: int) -> None:
        """UperNet from one row's weights, then its tests."""
        arm, checkpoint = WEIGHTS[row]
        folder, shared = self.fine_tuned(row, seed), [f"data_root={self.data}", *self.options]
        start = f"{INIT_CFG}.checkpoint={self.pretrained(arm, seed) / checkpoint}"
        options = [*shared, f"randomness.seed={seed}", start]
        self.once("train", [str(UPERNET), "--resume", "--cfg-options", *options], folder)
        for split in SPLITS:
            prefix = [f"{SPLIT}img_path=leftImg8bit/{split}", f"{SPLIT}seg_map_path=gtFine/{split}"]
            arguments = [str(UPERNET), str(folder / LATEST), "--cfg-options", *shared, *prefix]
            self.once("test", arguments, folder / split)

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


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, report."""
    args, data, command = parse_study(__doc__, argv)
    study = StreetScenes(data / "camvid-as-cityscapes", args.out.resolve(), args.cfg_options, args.jobs)
    if not args.report:
        study.run()
        print("nothing is left")
    print(study.report(command))


if __name__ == "__main__":
    run_cli(main)
