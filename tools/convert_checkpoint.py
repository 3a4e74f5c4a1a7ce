"""Convert a backbone's checkpoint to and from what others use, every weight or none.

    python tools/convert_checkpoint.py work_dirs/RUN/latest.pth deit-s.safetensors          # ours to timm's keys
    python tools/convert_checkpoint.py dino_deitsmall16_pretrain.pth dino.safetensors       # anybody's, for our configs
    python tools/convert_checkpoint.py deit-s.safetensors deit-s_hf --to huggingface --verify

SRC: a checkpoint of this repository, timm, DINO, iBOT, EsViT, MoBY, MAE, the original Swin, mmdet, mmseg or
detectron2, or a Hugging Face ViTModel or SwinModel (its folder). It is recognised by its keys and shapes; what was
found is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from mst_pretrain.checkpoints.choices import FORMAT_NAMES, POSITION_RULES, STUDENT, TARGET_NAMES, TEACHER
from mst_pretrain.runtime.argument_types import json_object
from mst_pretrain.runtime.errors import UserError, run_cli

if TYPE_CHECKING:
    from mst_pretrain.checkpoints import Backbone


def verify(backbone: Backbone, written: Path, to: str) -> float:
    """Largest deviation of the features of the written file's network, built by the library that reads it.

    Raises:
        NotVerified: The library is not installed.
        UserError: The features differ.
    """
    from mst_pretrain.checkpoints.verify import (
        TOLERANCE,
        NotVerified,
        huggingface_deviation,
        require,
        timm_deviation,
    )

    if backbone.missing:
        raise NotVerified(f"not verified: {len(backbone.missing)} weights are missing. The file stays.")
    if to == "timm":
        deviation = timm_deviation(backbone, written)
    elif to == "huggingface":
        deviation = huggingface_deviation(backbone, written)
    elif to == "detectron2":
        raise NotVerified("not verified: no comparison with detectron2 was ever run here. The file stays.")
    else:
        require(to, to)
        if importlib.util.find_spec("mmcv") is None:
            raise NotVerified(f"not verified: {to} needs mmcv, which is not installed. The file stays.")
        from mst_transfer.backbones.native import native_deviation

        deviation = native_deviation(backbone, written, to)
    if not deviation <= TOLERANCE:
        raise UserError(
            f"{written}: its features in {to} differ by {deviation:.1e} of the largest value (allowed: {TOLERANCE:g}). "
            "Do not use it; please report the source file's origin."
        )
    return deviation


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="checkpoint, or Hugging Face folder")
    parser.add_argument("destination", type=Path, metavar="DST", help="file to write, or folder")
    parser.add_argument("--from", dest="source_format", default="auto", choices=["auto", *FORMAT_NAMES])
    parser.add_argument(
        "--to", default="timm", choices=TARGET_NAMES, help="default: timm, for our own configs"
    )
    parser.add_argument(
        "--which",
        choices=[TEACHER, STUDENT],
        help="network of a file with two; default: the one whose figures its authors publish (the teacher; of MoBY "
        "the student)",
    )
    parser.add_argument("--verify", action="store_true", help="build both networks and compare features")
    parser.add_argument("--prefix", help="exactly what stands before the backbone's keys")
    parser.add_argument("--model", help="timm name, where the file does not tell")
    parser.add_argument("--model-args", type=json_object, metavar="JSON", help="what differs from that model")
    parser.add_argument(
        "--img-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="image size to build for; a ViT's positions are resized",
    )
    parser.add_argument(
        "--positions",
        choices=POSITION_RULES,
        help="rule of resizing a ViT's positions, for --img-size and written into the file, which is then loaded by "
        "backbones of that rule alone",
    )
    parser.add_argument(
        "--window", type=int, help="resize a Swin's bias tables to this window; with --img-size"
    )
    parser.add_argument(
        "--allow-missing",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="timm names (regular expressions, from the start) that the file may lack",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="names of the file, behind the prefix, that are no part of the backbone (regular expressions)",
    )
    parser.add_argument(
        "--trusted",
        action="store_true",
        help="let a file that holds more than weights run its code: only for a file whose author you trust",
    )
    args = parser.parse_args(argv)
    if args.img_size is not None and len(args.img_size) > 2:
        parser.error("--img-size takes a side, or a height and a width")
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert, say what was read and written, compare if asked."""
    args = parse(argv)
    from mst_pretrain.checkpoints import convert_checkpoint

    names = (
        "source_format",
        "which",
        "positions",
        "prefix",
        "model",
        "model_args",
        "allow_missing",
        "ignore",
        "trusted",
    )
    reading = {name: getattr(args, name) for name in names}
    reading |= {"image_size": args.img_size, "window_size": args.window}
    backbone = convert_checkpoint(args.source, args.destination, args.to, **reading)
    print(backbone)
    print(f"written for {args.to}: {args.destination}", flush=True)
    if args.verify:
        deviation = verify(backbone, args.destination, args.to)
        print(f"verified with {args.to}: largest feature deviation {deviation:.1e}")


if __name__ == "__main__":
    run_cli(main)
