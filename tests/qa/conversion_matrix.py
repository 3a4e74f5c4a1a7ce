"""Do converted checkpoints compute the same? Formats x {DeiT-S, Swin-T} x {in, out} as one Markdown table.

    python tests/qa/conversion_matrix.py [--formats F ...] [--architectures A ...] [--out matrix.json]

A cell is the largest deviation |a - b|.max() / |b|.max() of features over both image sizes and, where a network gives
several maps, over these. *in*: the project writes a file of random weights and ``convert_checkpoint`` reads it; our
network of the result against the project's. *out*: ``convert_checkpoint`` writes the teacher of a pretraining
checkpoint of ours; the project's network, loaded from that file by the project's own loader, against the teacher. Exit
code 1 when a cell is above 1e-5 or could not be measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file

from mst_pretrain.checkpoints import convert_checkpoint
from mst_pretrain.checkpoints.formats import TARGETS
from mst_pretrain.checkpoints.verify import deviation
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests/mst_pretrain/checkpoints"))
from foreign import ARCHITECTURES, exists
from matrix_networks import FOREIGN, FORMATS, Net, convert_options, make, mst_checkpoint, ours, read_back

LIMIT = 1e-5  # relative; float32 sums in another order differ by less
TITLES = {"deit-s": "DeiT-S", "swin-t": "Swin-T"}
REAL, OWN = "real library", "own reference"
NO_TARGET = {
    "mst": "mst, out: our own configs read what --to timm writes.",
    **dict.fromkeys(("dino", "ibot", "esvit", "moby", "mae", "swin"), "{}, out: the format is only read."),
}
NO_NETWORK = {
    ("dino", "Swin"): "dino, Swin: DINO's code builds no Swin.",
    ("mae", "Swin"): "mae, Swin: MAE is a ViT.",
    ("esvit", "ViT"): "esvit, ViT: EsViT published no DeiT.",
    ("swin", "ViT"): "swin, ViT: the original Swin's project has no ViT.",
    ("mmdet", "ViT"): "mmdet, ViT: mmdet has no ViT backbone.",
}


def absent(format: str, net: Net, direction: str) -> str | None:
    """Why there is nothing to compare, or None."""
    there = exists(format, net.name) if format in FOREIGN else format != "mmdet" or net.is_swin
    if not there:
        return NO_NETWORK[format, "Swin" if net.is_swin else "ViT"]
    return NO_TARGET[format].format(format) if direction == "out" and format not in TARGETS else None


@torch.no_grad()
def compare_in(format: str, net: Net, size: tuple[int, int], work: Path) -> float:
    """The project's file, converted, in our network; against the project's network."""
    images = net.images(size)
    path, theirs = make(format, net, work)
    written = work / f"in_{size[1]}.safetensors"
    found = convert_checkpoint(path, written, **convert_options(format, net, size))
    state, eps = load_file(written), found.norm_eps
    return largest(ours(format, net, found.architecture, state, images, eps=eps), theirs(images))


@torch.no_grad()
def compare_out(format: str, net: Net, size: tuple[int, int], work: Path) -> float:
    """Our checkpoint, converted, in the project's network; against our network of the teacher's own weights.

    A ViT's positions are resized by the conversion, except for detectron2, which takes square ones and resizes them.
    """
    images = net.images(size)
    checkpoint, teacher = mst_checkpoint(net, work)
    written = work / f"out_{size[1]}{TARGETS[format].suffixes[0]}"
    resize = not net.is_swin and format != "detectron2" and size != net.native
    convert_checkpoint(checkpoint, written, format, image_size=size if resize else None)
    theirs = read_back(format, net, written, size if resize else net.native)
    return largest(theirs(images), ours(format, net, net.architecture, teacher, images, out=True))


def largest(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Over all outputs."""
    return max(deviation(a, b) for a, b in zip(found, expected, strict=True))


def measure(format: str, net: Net, direction: str) -> dict[str, Any]:
    """One cell."""
    cell: dict[str, Any] = {"format": format, "architecture": net.name, "direction": direction}
    reason = absent(format, net, direction)
    if reason is not None:
        return {**cell, "absent": reason}
    compare = compare_in if direction == "in" else compare_out
    cell |= {"against": OWN if format in FOREIGN else REAL, "deviation": {}}
    for size in net.sizes:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # mmengine prints
            try:
                cell["deviation"][f"{size[0]}x{size[1]}"] = compare(format, net, size, Path(folder))
            except Exception as error:  # whatever it is, the other cells are worth having
                traceback.print_exc()
                cell["error"] = f"{type(error).__name__}: {error}"
    return cell


def passed(cell: dict[str, Any]) -> bool:
    """Nothing to compare, or equal at every size."""
    return "error" not in cell and all(value <= LIMIT for value in cell.get("deviation", {}).values())


def text(cell: dict[str, Any]) -> str:
    """A cell of the table."""
    if "absent" in cell:
        return "-"
    if "error" in cell:
        return f"**FAILED**, {cell['against']}"
    worst = max(cell["deviation"].values())
    return (f"{worst:.1e}" if passed(cell) else f"**{worst:.1e}**") + f", {cell['against']}"


def markdown(cells: Sequence[dict[str, Any]], nets: Sequence[Net]) -> str:
    """The table, what it shows, and why a cell is empty."""
    columns = [(net.name, direction) for net in nets for direction in ("in", "out")]
    found = {(cell["format"], cell["architecture"], cell["direction"]): cell for cell in cells}
    formats = list(dict.fromkeys(cell["format"] for cell in cells))
    sizes = "; ".join(f"{TITLES.get(net.name, net.name)}: {net.sizes_text}" for net in nets)
    lines = [
        f"Largest relative deviation of features over both image sizes ({sizes}), float32, every weight, norm, bias, "
        f"bias table, position and class token random (embeddings small, as trained ones); allowed: {LIMIT:g}.",
        "",
        f"| format | {' | '.join(f'{TITLES.get(name, name)} {way}' for name, way in columns)} |",
        f"|{'---|' * (1 + len(columns))}",
        *(f"| {f} | {' | '.join(text(found[f, name, way]) for name, way in columns)} |" for f in formats),
        "",
        f"*{REAL}*: the project's own code was built and run (mst: this project's). *{OWN}*: the project's forward as "
        "written for tests/mst_pretrain/checkpoints/foreign from its source.",
        "",
        "A ViT away from its own size: *in*, mst and timm, the conversion resizes the positions (--img-size) and timm "
        "resizes them in the source; *in*, others, the converted file's positions stay and are resized by the source "
        "project's rule on both sides. *out*: converted with --img-size, the target built for that size; detectron2 "
        "resizes square positions itself. detectron2's ViT has neither class token nor last norm: its patch tokens are "
        "compared with ours computed that way.",
        "",
        "A Swin: mmdet, mmseg and detectron2 shift also where the map fits one window and are compared with MSTSwin, "
        "all four stages before their output norms; the others with timm's Swin. At these sizes every map is a "
        "multiple of the window, so shifting before or after padding is the same.",
        "",
        "The norms' epsilon is the source's, which the converter reports and writes into the metadata: 1e-6 in iBOT's "
        "and EsViT's Swins, 1e-12 in transformers' ViT by default; timm's own are 1e-5 (Swin) and 1e-6 (ViT). Left at "
        "timm's, the features of these three differ by some 1e-5 to 1e-4.",
        "",
        *sorted({f"- {cell['absent']}" for cell in cells if "absent" in cell}),
        *(
            f"- **{cell['format']}, {cell['architecture']}, {cell['direction']}: {cell['error']}**"
            for cell in cells
            if "error" in cell
        ),
    ]
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Of everything compared."""
    import mmdet
    import mmseg
    import transformers

    libraries = (torch, timm, transformers, mmdet, mmseg)
    return {"python": platform.python_version(), **{lib.__name__: lib.__version__ for lib in libraries}}


def main(argv: list[str] | None = None) -> int:
    """Measure every cell, print the table; 1 when a cell is above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, metavar="F")
    parser.add_argument(
        "--architectures", nargs="+", choices=ARCHITECTURES, default=list(TITLES), metavar="A"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON too")
    args = parser.parse_args(argv)
    start, nets = time.monotonic(), [Net(name) for name in args.architectures]
    cells = []
    for format in args.formats:
        for net in nets:
            for direction in ("in", "out"):
                cells.append(measure(format, net, direction))
                print(f"{format}, {net.name}, {direction}: {text(cells[-1])}", file=sys.stderr, flush=True)
    print(markdown(cells, nets))
    good = all(passed(cell) for cell in cells)
    measured = sum("absent" not in cell for cell in cells)
    seconds = time.monotonic() - start
    print(f"\n{measured} cells measured, {'all' if good else 'NOT all'} within {LIMIT:g}; {seconds:.0f} s")
    if args.out:
        content = {"limit": LIMIT, "versions": versions(), "cells": cells}
        args.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    run_cli(main)
