"""From images to mAP and mIoU with one command, at toy size. Called by tools/quickstart.sh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mst_pretrain.runtime.errors import run_cli

NOTE = """
These figures show that the whole system works. They are NOT the paper's and say nothing about them: a backbone
1/25 the size of DeiT-S, minutes of training, small images."""


def folder(path: str) -> Path:
    """Absolute, because the tools run in another folder."""
    return Path(path).resolve()


def main() -> None:
    """Parse, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=folder, default="quickstart_out", help="everything is written here")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pretrain-epochs", type=float, help="0: both columns start from the same weights")
    parser.add_argument("--images", type=folder, help="own unlabelled images, any folder structure")
    parser.add_argument("--coco", type=folder, help="own data in COCO's layout")
    parser.add_argument("--cityscapes", type=folder, help="own data in Cityscapes' layout")
    parser.add_argument(
        "--max-iters", type=int, help="stop every training after so many iterations, to try the script"
    )
    args = parser.parse_args()

    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    from examples.quickstart.run import Quickstart, table
    from examples.quickstart.sheet import draw_sheet

    quickstart = Quickstart(root, **vars(args))
    results = quickstart.run()
    sheet = draw_sheet(quickstart.out)
    print(f"\n{table(results)}\n{NOTE}\n\nPicture: {sheet}\nFigures: {quickstart.out / 'results.json'}")


if __name__ == "__main__":
    run_cli(main)
