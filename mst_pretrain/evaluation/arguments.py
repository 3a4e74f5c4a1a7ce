"""Arguments that the evaluations of a backbone share. Importing it imports no torch: help must not wait for it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..runtime.argument_types import PRECISIONS, json_object, positive

if TYPE_CHECKING:
    import torch

    from ..method.backbones import Trunk
    from .trunk import Origin

__all__ = [
    "add_backbone_arguments",
    "add_image_arguments",
    "json_object",
    "positive",
    "precision_of",
    "trunk_of",
]


def add_backbone_arguments(parser: argparse.ArgumentParser) -> None:
    """Which weights, which model, in which precision."""
    parser.add_argument(
        "--checkpoint",
        help="any that tools/convert_checkpoint.py reads, e.g. of tools/pretrain.sh, DINO or Hugging Face; 'none' or "
        "left out: random weights",
    )
    parser.add_argument(
        "--prefix", help="what stands before the backbone's keys (default: found in the file)"
    )
    parser.add_argument("--model", help="timm name of the backbone (default: the checkpoint's)")
    parser.add_argument("--model-args", type=json_object, default={}, help="JSON, e.g. '{\"patch_size\": 8}'")
    parser.add_argument(
        "--precision",
        "--dtype",
        dest="dtype",
        choices=PRECISIONS,
        default="auto",
        help="of the backbone's forward pass; auto: bfloat16 on a GPU that computes in it, else float32",
    )


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """The two labelled sets and how their images become tensors."""
    parser.add_argument("train", help="labelled images, e.g. a folder with one folder per class")
    parser.add_argument("val", help="the same classes, or some of them")
    add_backbone_arguments(parser)
    parser.add_argument("--resize", type=positive, default=256, help="short side")
    parser.add_argument("--crop", type=positive, default=224, help="side of the centre crop")
    parser.add_argument("--batch-size", type=positive, default=64, help="images per forward and process")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--out", help="write the result there as JSON")


def trunk_of(args: argparse.Namespace) -> tuple[Trunk, Origin]:
    """The backbone that the arguments name: see :func:`load_trunk` and :func:`check_size`."""
    from .features import check_size
    from .trunk import load_trunk

    trunk, origin = load_trunk(args.checkpoint, args.prefix, args.model, args.model_args, args.seed)
    check_size(trunk, args.resize, args.crop)
    return trunk, origin


def precision_of(args: argparse.Namespace, device: torch.device) -> str:
    """float32 or bfloat16, as ``--dtype`` and the device have it; the first process prints it."""
    from ..runtime.devices import precision_on
    from .ranks import speaks

    precision = precision_on(device, args.dtype)
    if speaks():
        print(f"the backbone runs in {precision} on {device}", file=sys.stderr)
    return precision
