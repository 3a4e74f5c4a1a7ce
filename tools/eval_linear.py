"""Linear accuracy of a frozen backbone on labelled images. Several processes: tools/dist_eval.sh.

``sweep``: learning rates x features, all heads at once; the best on held-out training images is tested on val, once.
``dino``: DINO's linear evaluation: one head, SGD, cosine, random crops; the last epoch's head is tested on val.
"""

from __future__ import annotations

import argparse

from mst_pretrain.evaluation.arguments import add_image_arguments, positive
from mst_pretrain.evaluation.protocols import BATCH, DINO_EPOCHS, HELD_OUT, SWEEP_EPOCHS
from mst_pretrain.evaluation.tool import run_tool
from mst_pretrain.runtime.errors import UserError


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; its contradictions are refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_image_arguments(parser)
    parser.add_argument("--protocol", choices=("sweep", "dino"), default="sweep")
    parser.add_argument(
        "--augment", choices=("crop", "none"), default="crop", help="none: features computed once"
    )
    parser.add_argument("--epochs", type=positive, help=f"default: {SWEEP_EPOCHS}, dino: {DINO_EPOCHS}")
    parser.add_argument("--lr", type=float, nargs="+", help="per 256 images (default: the protocol's)")
    parser.add_argument("--blocks", type=positive, nargs="+", help="last blocks (default: 1 4, dino: 4)")
    parser.add_argument(
        "--avgpool",
        action="store_true",
        help="dino, with --blocks 1: the mean of the patch tokens beside [CLS], DINO's setting for ViT-B (a sweep "
        "tries it anyway)",
    )
    parser.add_argument(
        "--train-batch-size", type=positive, default=BATCH, help="per step, all processes together"
    )
    parser.add_argument("--low-shot", type=float, help="train on this share of every class, e.g. 0.01 or 0.1")
    parser.add_argument(
        "--hold-out", type=float, default=HELD_OUT, help="share of every class to choose by (sweep)"
    )
    parser.add_argument("--save", help="also write labels and predictions there (.npz)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from OUT.state: heads and momentum after the last epoch",
    )
    args = parser.parse_args(argv)
    for name, value in (("--low-shot", args.low_shot), ("--hold-out", args.hold_out)):
        if value is not None and not 0 < value < 1:
            raise UserError(f"{name} {value} must lie between 0 and 1, e.g. 0.1.")
    if args.lr and min(args.lr) <= 0:
        raise UserError(f"--lr {min(args.lr)} must be above 0.")
    if args.resume and not args.out:
        raise UserError("--resume needs --out FILE: the state lies beside it as FILE.state.")
    if args.protocol == "dino" and (
        args.augment == "none" or len(args.lr or [1]) > 1 or len(args.blocks or [1]) > 1
    ):
        raise UserError(
            "--protocol dino trains one head on random crops: one --lr, one --blocks, --augment crop."
        )
    if args.avgpool and args.protocol != "dino":
        raise UserError(
            "--avgpool belongs to --protocol dino; a sweep tries every --blocks with and without the patch tokens' "
            "mean. Leave it out."
        )
    if args.avgpool and args.blocks != [1]:
        raise UserError(
            "--avgpool needs --blocks 1: DINO's evaluation puts the patch tokens' mean beside the last [CLS] alone."
        )
    return args


def main(argv: list[str] | None = None) -> None:
    """Parse, train the heads, choose, test, print one JSON line."""
    args = parse(argv)
    from mst_pretrain.evaluation.linear_evaluation import evaluate_linear

    evaluate_linear(args)


if __name__ == "__main__":
    run_tool(main)
