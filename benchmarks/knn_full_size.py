"""Peak memory and seconds of k-NN at ImageNet's size, on generated features.

    python benchmarks/knn_full_size.py [--train 1280000] [--val 50000] [--width 384] [--threads 2]

Prints one JSON line. Features of 1,000 classes: a centre each, and noise. ``features_gib`` is the size of the training
features; ``peak_gib`` is the largest resident memory of the process, PyTorch included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from mst_pretrain.evaluation.knn import accuracy, knn_predict
from mst_pretrain.evaluation.protocols import NEIGHBOURS, TEMPERATURE
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import peak_of_process

CLASSES, NOISE, CHUNK = 1000, 3.0, 65536


def generated(count: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features [count, width] float32 and labels [count] int64, made in chunks."""
    centers = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    features = torch.empty(count, width)
    for rows, own in zip(features.split(CHUNK), labels.split(CHUNK), strict=True):
        rows.normal_(generator=generator).mul_(NOISE).add_(centers[own])
    return features, labels


def main(argv: list[str] | None = None) -> None:
    """Generate, vote, one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=1_280_000)
    parser.add_argument("--val", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    train, val = generated(args.train, args.width, 1), generated(args.val, args.width, 2)
    before, start = peak_of_process(), time.monotonic()
    predicted = knn_predict(*train, val[0], NEIGHBOURS, TEMPERATURE)
    result = {
        **vars(args),
        "features_gib": round(train[0].nbytes / 2**30, 2),
        "peak_before_gib": round(before, 2),
        "peak_gib": round(peak_of_process(), 2),
        "seconds": round(time.monotonic() - start, 1),
        "accuracy": {k: round(accuracy(classes, val[1]), 2) for k, classes in predicted.items()},
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run_cli(main)
