"""k-NN accuracy of a frozen backbone on labelled images. Several processes: tools/dist_eval.sh."""

from __future__ import annotations

import argparse

from mst_pretrain.evaluation.arguments import add_image_arguments, positive
from mst_pretrain.evaluation.protocols import NEIGHBOURS
from mst_pretrain.evaluation.tool import run_tool


def main(argv: list[str] | None = None) -> None:
    """Parse, extract, vote, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_image_arguments(parser)
    parser.add_argument(
        "-k", type=positive, nargs="+", help=f"neighbours (default: of {NEIGHBOURS} those that fit)"
    )
    parser.add_argument("--save", help="also write features, labels and predictions there (.npz)")
    args = parser.parse_args(argv)

    from mst_pretrain.evaluation.knn_evaluation import evaluate_knn

    evaluate_knn(args)


if __name__ == "__main__":
    run_tool(main)
