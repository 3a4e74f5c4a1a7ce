"""Arguments that the evaluations of a backbone share."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

from ..method.backbones import Trunk
from ..runtime.devices import PRECISIONS, precision_on
from .features import check_size
from .ranks import speaks
from .trunk import Origin, load_trunk


def json_object(text: str) -> dict[str, Any]:
    """A JSON object from the command line."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("a JSON object is expected, e.g. '{\"patch_size\": 8}'")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is expected, got '{text}'")
    return int(text)


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
    trunk, origin = load_trunk(args.checkpoint, args.prefix, args.model, args.model_args, args.seed)
    check_size(trunk, args.resize, args.crop)
    return trunk, origin


def precision_of(args: argparse.Namespace, device: torch.device) -> str:
    """float32 or bfloat16, as ``--dtype`` and the device have it; the first process prints it."""
    precision = precision_on(device, args.dtype)
    if speaks():
        print(f"the backbone runs in {precision} on {device}", file=sys.stderr)
    return precision
