"""Scoring: COCO's average precision beside pycocotools, k-NN beside scikit-learn.

    python benchmarks/evaluation.py coco [--images 5000] [--detections 100] [--rounds 5]
    python benchmarks/evaluation.py knn [--train 50000] [--val 5000] [--width 384] [--rounds 5] [--threads 2]

``coco``: boxes of 80 classes, about seven objects an image, and half of the detections near one. Ours is ``score_coco``
with the default library, checks included; the peer is COCOeval as its demo calls it. ``knn``: 100 classes, k = 20. The
results of both are compared. Each peak memory is measured in a separate process.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mst_pretrain.evaluation.knn import knn_predict
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import in_turn, peak_of_process, publish, table

OURS = "ours"
SIDE, CLASSES, TEMPERATURE, K = 640, 80, 0.07, 20
Variants = dict[str, Callable[[], Any]]


def coco_data(images: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth, and results in COCO's format."""
    rng = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        size = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
        return np.concatenate([rng.uniform(0, SIDE - size), size], 1)

    truth: dict[str, Any] = {
        "images": [dict(id=i, file_name=f"{i}.jpg", height=SIDE, width=SIDE) for i in range(1, images + 1)],
        "categories": [dict(id=i, name=f"class {i}") for i in range(1, CLASSES + 1)],
        "annotations": [],
    }
    results = []
    for image in range(1, images + 1):
        own, kinds = boxes(int(rng.integers(1, 14))), rng.integers(1, CLASSES + 1, 14)
        for box, kind in zip(own, kinds, strict=False):
            entry = dict(id=len(truth["annotations"]) + 1, image_id=image, category_id=int(kind), iscrowd=0)
            truth["annotations"].append({**entry, "bbox": box.tolist(), "area": float(box[2] * box[3])})
        near = rng.integers(0, len(own), detections // 2)
        moved = own[near] * rng.normal(1, 0.1, (len(near), 4))
        found = np.concatenate([moved, boxes(detections - len(near))])
        labels = np.concatenate([kinds[near], rng.integers(1, CLASSES + 1, detections - len(near))])
        for box, kind, score in zip(found, labels, rng.random(detections), strict=True):
            entry = dict(image_id=image, category_id=int(kind), score=float(score))
            results.append({**entry, "bbox": box.tolist()})
    return truth, results


def coco_variants(images: int, detections: int) -> tuple[Variants, str]:
    """Both score the same detections; each returns the average precision."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from mst_transfer.evaluation.coco_scores import score_coco

    truth, results = coco_data(images, detections)

    def peer() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = copy.deepcopy(truth)
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    return {
        OURS: lambda: score_coco(truth, results, "bbox").statistics["mAP"],
        "pycocotools": peer,
    }, "pycocotools"


def knn_variants(train: int, val: int, width: int) -> tuple[Variants, str]:
    """Both classify the same features; each returns the classes."""
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    centers = rng.normal(size=(100, width)).astype(np.float32)
    labels, val_labels = rng.integers(0, 100, train), rng.integers(0, 100, val)
    features = centers[labels] + 3 * rng.normal(size=(train, width)).astype(np.float32)
    queries = centers[val_labels] + 3 * rng.normal(size=(val, width)).astype(np.float32)

    def ours() -> np.ndarray:
        tensors = [torch.from_numpy(array) for array in (features, labels, queries)]
        return knn_predict(*tensors, neighbours=(K,), temperature=TEMPERATURE)[K].numpy()

    def peer() -> np.ndarray:
        classifier = KNeighborsClassifier(
            K, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE), n_jobs=-1
        )
        return np.asarray(classifier.fit(features, labels).predict(queries))

    return {OURS: ours, "scikit-learn": peer}, "scikit-learn"


def main(argv: list[str] | None = None) -> None:
    """Time one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("coco", "knn"))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--train", type=int, default=50000)
    parser.add_argument("--val", type=int, default=5000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    made = (
        coco_variants(args.images, args.detections)
        if args.what == "coco"
        else knn_variants(args.train, args.val, args.width)
    )
    variants, peer = made
    if args.only:
        variants[args.only]()
        print(json.dumps(peak_of_process()))
        return
    found = {name: np.asarray(call()) for name, call in variants.items()}
    seconds = in_turn(variants, args.rounds, torch.device("cpu"))
    rows = [{**row, "peak GiB": round(_memory_of(row["variant"], argv), 2)} for row in table(seconds, peer)]
    difference = np.abs(found[OURS].astype(float) - found[peer]).max()
    publish(
        f"evaluation, {args.what}",
        rows,
        torch.device("cpu"),
        **vars(args),
        largest_difference=float(difference),
    )


def _memory_of(variant: str, argv: list[str] | None) -> float:
    command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), "--only", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    run_cli(main)
