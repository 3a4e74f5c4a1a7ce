"""From images to mAP and mIoU with one command, at toy size. Called by tools/quickstart.sh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mst_pretrain.runtime.errors import run_cli

NOTE = """
These figures show that the whole system works. They are NOT the paper's and say nothing about them: a backbone
1/25 the size of DeiT-S, minutes of training, small images."""


def main() -> None:
    """Parse, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("quickstart_out"), help="everything is written here")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pretrain-epochs", type=float, help="0: both columns start from the same weights")
    parser.add_argument("--images", type=Path, help="own unlabelled images, any folder structure")
    parser.add_argument("--coco", type=Path, help="own data in COCO's layout")
    parser.add_argument("--cityscapes", type=Path, help="own data in Cityscapes' layout")
    parser.add_argument(
        "--max-iters", type=int, help="stop every training after so many iterations, to try the script"
    )
    args = parser.parse_args()

    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    from examples.quickstart.run import Quickstart, table
    from examples.quickstart.sheet import draw_sheet

    own = {
        name: value and value.resolve()
        for name, value in vars(args).items()
        if name in ("images", "coco", "cityscapes")
    }
    quickstart = Quickstart(
        root, args.out.resolve(), args.seed, args.pretrain_epochs, max_iters=args.max_iters, **own
    )
    results = quickstart.run()
    sheet = draw_sheet(quickstart.out)
    print(f"\n{table(results)}\n{NOTE}\n\nPicture: {sheet}\nFigures: {quickstart.out / 'results.json'}")


if __name__ == "__main__":
    run_cli(main)
