"""Predict images with a trained detector or segmentor: pictures, official result files, and an index in JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from mst_pretrain.runtime.argument_types import PRECISIONS, positive
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.runtime.options import ConfigOptions


def main(argv: list[str] | None = None) -> int:
    """Parse, check everything, predict; 1 where some images were left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", help="images, or folders of images at any depth")
    parser.add_argument("--config", required=True, help="config of the training")
    parser.add_argument("--checkpoint", required=True, help="checkpoint of a training with this config")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="everything is written there; a new or empty folder"
    )
    parser.add_argument(
        "--annotations",
        metavar="JSON",
        help="COCO file with the ids of these images and of the categories (default: the numbers in COCO's file names, "
        "COCO's category ids for its 80 classes, else 1, 2, 3, ...)",
    )
    parser.add_argument(
        "--score-thr",
        "--score-threshold",
        dest="score_threshold",
        type=float,
        default=0.3,
        help="of drawn boxes; the JSON has every one",
    )
    parser.add_argument("--tta", action="store_true", help="several sizes, each also mirrored, merged")
    parser.add_argument("--tta-scales", type=float, nargs="+", metavar="FACTOR", help="of the test size")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=1,
        help="images of equal shape in one forward pass (default 1); the masks of all are in memory at once",
    )
    parser.add_argument(
        "--precision",
        "--dtype",
        dest="dtype",
        choices=PRECISIONS,
        default="auto",
        help="of a detector's backbone and neck, or of a whole segmentor; auto: bfloat16 on a GPU that computes in it, "
        "else float32",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="override keys of the config, as in tools/train.py",
    )
    args = parser.parse_args(argv)

    from mst_pretrain.runtime.config import load_config, read_options
    from mst_pretrain.training.processes import launcher_of

    if launcher_of("none") != "none":
        raise UserError(
            "tools/predict.py works in one process, but several were started, which would all write the same files. "
            "Start it without a launcher."
        )
    tta = args.tta or args.tta_scales is not None
    tool = "tools/predict.py --tta" if tta else "tools/predict.py"
    cfg = load_config(args.config, read_options(args.config, args.cfg_options, tool))
    from mst_transfer.evaluation.output import fresh_folder
    from mst_transfer.prediction.files import INDEX, PredictionFiles, find_images
    from mst_transfer.prediction.predictor import Predictor

    images = find_images(args.images)
    fresh_folder(args.out, args.images)
    predictor = Predictor(cfg, args.checkpoint, args.device, args.tta, args.tta_scales, args.dtype)
    files = PredictionFiles(predictor, args.out, args.annotations, args.score_threshold, args.batch_size)
    settings = {"config": args.config, "checkpoint": args.checkpoint}
    settings |= {"tta": tta, "tta_scales": args.tta_scales, "dtype": predictor.precision}
    index = files.run(images, settings)
    print(f"{len(index['images'])} of {len(images)} images predicted: {Path(args.out, INDEX)}", flush=True)
    return 1 if index["failed"] else 0


if __name__ == "__main__":
    run_cli(main)
