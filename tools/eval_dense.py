"""Dense probe of a frozen backbone on images with label maps: one linear layer, mIoU, mAcc, aAcc.

Trains and tests configs/probe/dense_probe_vit.py or dense_probe_swin.py, the backbone's shape taken from the
checkpoint, classes and sizes from the data (of Cityscapes, the classes that occur in its training labels).
"""

from __future__ import annotations

import argparse

from mst_pretrain.evaluation.arguments import add_backbone_arguments
from mst_pretrain.runtime.errors import run_cli
from mst_pretrain.training.command_line import add_arguments


def main(argv: list[str] | None = None) -> None:
    """Parse, check everything, train the linear layer, test, print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root",
        help="Cityscapes' layout (leftImg8bit, gtFine), VOC's, or images and masks (docs/data_layouts.md)",
    )
    add_backbone_arguments(parser)
    parser.add_argument("--config", help="a probe's config (default: that of the checkpoint's kind)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of random weights, the linear layer, order and crops"
    )
    parser.add_argument("--save", help="also write every image's confusion matrix there (.npz)")
    parser.add_argument("--out", help="write the result there as JSON")
    add_arguments(parser)
    args = parser.parse_args(argv)

    from mst_toolkit.dense_data import put_other_layout
    from mst_transfer.evaluation.dense_probe import evaluate_dense

    evaluate_dense(args, put_other_layout)


if __name__ == "__main__":
    run_cli(main)
