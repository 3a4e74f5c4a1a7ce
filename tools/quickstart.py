"""What MST learns from pictures without labels, in five minutes. With --full: to mAP and mIoU, at toy size."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mst_pretrain.runtime.errors import run_cli

EPILOG = """
default: draws street scenes, pretrains for a minute, and reads out frozen features of random weights, of that run and
of the shipped checkpoint with 20, 80 and 320 labelled scenes: about 4 minutes on two cores, without mmdet and mmseg.
--full: data, pretraining, dense probe, Mask R-CNN and UperNet from both starts, about 18 minutes on two cores."""
NOTE = """
These figures show that the whole system works. They are NOT the paper's and say nothing about them: a backbone
1/25 the size of DeiT-S, minutes of training, small images."""
DRAWN = "The scenes were drawn for this demonstration; the figures say nothing about photographs."


def folder(path: str) -> Path:
    """Absolute, because the tools run in another folder."""
    return Path(path).resolve()


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Arguments; those of --full are refused without it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=folder, default="quickstart_out", help="everything is written here")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="through detection and segmentation")
    full = parser.add_argument_group("with --full")
    full.add_argument("--pretrain-epochs", type=float, help="0: both columns start from the same weights")
    full.add_argument("--images", type=folder, help="own unlabelled images, any folder structure")
    full.add_argument("--coco", type=folder, help="own data in COCO's layout")
    full.add_argument("--cityscapes", type=folder, help="own data in Cityscapes' layout")
    full.add_argument("--max-iters", type=int, help="stop every training after so many iterations, to try it")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: give 0 or more")
    given = [
        name
        for name in ("pretrain_epochs", "images", "coco", "cityscapes", "max_iters")
        if getattr(args, name) is not None
    ]
    if given and not args.full:
        parser.error(f"--{given[0].replace('_', '-')} belongs to the long demonstration: add --full")
    return args


def main(argv: list[str] | None = None) -> None:
    """Parse, run, print the table."""
    options = vars(parse(argv))
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    if options.pop("full"):
        from examples.quickstart.run import Quickstart, table
        from examples.quickstart.sheet import draw_sheet

        quickstart = Quickstart(root, **options)
        results = quickstart.run()
        sheet = draw_sheet(quickstart.out)
        print(f"\n{table(results)}\n{NOTE}\n\nPicture: {sheet}\nFigures: {quickstart.out / 'results.json'}")
        return
    from examples.quickstart import demo

    out = options["out"]
    results = demo.Demonstration(root, out, options["seed"]).run()
    print(f"\n{demo.table(results)}\n\n{results['verdict']}", *results["notes"], DRAWN, sep="\n")
    print(
        f"\nReport: {out / 'report.html'}\nPicture: {out / 'quickstart.png'}\nFigures: {out / 'results.json'}"
    )


if __name__ == "__main__":
    run_cli(main)
