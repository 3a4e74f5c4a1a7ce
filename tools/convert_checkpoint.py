"""Export the teacher's backbone of a pretraining checkpoint as a timm-keyed .safetensors file.

``timm.create_model(NAME, checkpoint_path=FILE, num_classes=0)`` loads it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from mst_pretrain.checkpoint_io import load_state_dict, save_safetensors
from mst_pretrain.errors import UserError, run_cli

ARCHITECTURES = {
    ("pos_embed", (1, 197, 384)): "vit_small_patch16_224",
    ("layers.3.downsample.reduction.weight", (768, 1536)): "swin_tiny_patch4_window7_224",
}


def architecture(state: dict[str, Tensor]) -> str | None:
    """The timm name of an exported backbone where it is one of the two that the configs train."""
    found = [
        name
        for (key, shape), name in ARCHITECTURES.items()
        if key in state and tuple(state[key].shape) == shape
    ]
    return found[0] if found else None


def convert(source: Path, destination: Path, prefix: str) -> int:
    """Write the weights of ``source`` below ``prefix`` to ``destination``; returns their number.

    Raises:
        UserError: ``source`` cannot be read or holds nothing below ``prefix``, or another suffix is wanted.
    """
    if destination.suffix != ".safetensors":
        raise UserError(
            f"{destination}: the export is a .safetensors file. Give a name that ends in .safetensors."
        )
    state = load_state_dict(source, prefix)
    name = architecture(state)
    save_safetensors(state, destination, {"format": "pt"} | ({"architecture": name} if name else {}))
    return len(state)


def main(argv: list[str] | None = None) -> None:
    """Parse, convert, say what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint of tools/pretrain.sh")
    parser.add_argument("destination", type=Path, help="file to write, .safetensors")
    parser.add_argument(
        "--prefix", default="teacher.backbone.", help="what stands before the backbone's keys"
    )
    args = parser.parse_args(argv)
    count = convert(args.source, args.destination, args.prefix)
    print(f"{args.destination}: {count} weights of {args.source} with timm's keys")


if __name__ == "__main__":
    run_cli(main)
