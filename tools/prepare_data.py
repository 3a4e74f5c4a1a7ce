"""Check a data set before it is used: layout, official counts, every image and label; make Cityscapes' train ids.

It may be interrupted and run again: files that were read and have not changed since are not read again. Ends with code
2 when there is a problem; all problems are in ROOT/prepare_data.json.
"""

from __future__ import annotations

import argparse

from mst_pretrain.runtime.argument_types import positive
from mst_pretrain.runtime.errors import UserError, run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, check, say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "kind",
        choices=("imagenet", "coco", "cityscapes", "pair"),
        help="pair: images/SPLIT and label maps of class ids in labels/SPLIT, for train and val",
    )
    parser.add_argument("root", help="the unpacked data set")
    parser.add_argument(
        "--any-count", action="store_true", help="not the official set: any number of images and classes"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write there, not into ROOT: the summary, new label maps"
    )
    parser.add_argument("--classes", type=positive, metavar="N", help="pair: ids are 0 to N-1, and 255")
    parser.add_argument(
        "--boxes-only",
        action="store_true",
        help="coco: annotations need no masks; for a config that trains boxes",
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="threads (default: 4 a core, at most 16)"
    )
    args = parser.parse_args(argv)
    if args.boxes_only and args.kind != "coco":
        raise UserError(f"--boxes-only goes with 'coco'; {args.kind} has no boxes. Leave it out.")
    if (args.kind == "pair") != (args.classes is not None):
        raise UserError(
            "--classes N goes with 'pair', and 'pair' needs it: the number of classes of the label maps."
        )

    from mst_transfer.data.prepare import prepare

    any_count = args.any_count or args.kind == "pair"
    try:
        findings, summary = prepare(
            args.kind, args.root, args.out, any_count, args.classes or 0, args.workers, args.boxes_only
        )
    except KeyboardInterrupt:
        print("interrupted; run the same command again, it goes on from here", flush=True)
        raise
    print("\n".join(findings.lines(summary)))
    count = len(findings.problems)
    verdict = "no problem" if count == 0 else "1 problem" if count == 1 else f"{count:,} problems"
    warned = len(findings.warnings)
    verdict += f", {warned} warning{'s' * (warned > 1)}" if warned else ""
    print(f"{args.root}: {verdict}, summary in {summary}")
    return 2 if count else 0


if __name__ == "__main__":
    run_cli(main)
