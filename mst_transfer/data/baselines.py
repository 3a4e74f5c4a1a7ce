"""What a predictor without eyes scores: the bar a trained model has to clear."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mst_pretrain.data.files import in_threads
from mst_pretrain.runtime.errors import UserError

from .coco_file import read_coco
from .layouts import CITYSCAPES_CLASSES
from .pair_rules import cityscapes_label_maps

MAX_SIDE = 512  # of the prior; larger maps vote and are predicted through nearest neighbour
MAX_BOXES = 3000  # per class; beyond this many, evenly spaced ones stand for all


def cityscapes_position_prior(root: str | Path, classes: Sequence[str]) -> float:
    """:func:`position_prior_miou` of the train and val splits below ``root``, over classes given by name."""
    train, val = (cityscapes_label_maps(root, split) for split in ("train", "val"))
    return position_prior_miou(train, val, [CITYSCAPES_CLASSES.index(name) for name in classes])


def coco_frequent_box(root: str | Path) -> float:
    """:func:`frequent_box_map` of the train2017 and val2017 instances below ``root``."""
    folder = Path(root, "annotations")
    return frequent_box_map(folder / "instances_train2017.json", folder / "instances_val2017.json")


def position_prior_miou(
    train_labels: Sequence[Path], val_labels: Sequence[Path], train_ids: Sequence[int] = tuple(range(19))
) -> float:
    """mIoU in per cent of predicting, at each pixel, the class most frequent there in the training maps.

    IoU as mmseg's IoUMetric: intersections and unions summed over all maps, pixels of 255 left out, mean over
    the classes with a union. Maps of another size are resized by nearest neighbour.

    Args:
        train_labels: Label maps of train ids, at least one; the first one's size, at most 512, is the prior's.
        val_labels: Label maps to be predicted.
        train_ids: The classes; every other id counts as 255.

    Raises:
        UserError: An empty list of maps, or no labelled pixel to score.
    """
    if not train_labels or not val_labels:
        raise UserError("The position prior needs at least one training and one validation label map.")
    lookup = np.full(256, len(train_ids), np.uint8)
    lookup[list(train_ids)] = np.arange(len(train_ids))
    with Image.open(train_labels[0]) as first:
        shrink = min(1.0, MAX_SIDE / max(first.size))
        size = (round(first.height * shrink), round(first.width * shrink))
    votes = np.zeros((len(train_ids), *size), np.int32)
    for labels in _read_maps(train_labels, size):
        for index, train_id in enumerate(train_ids):
            votes[index] += labels == train_id
    prior = Image.fromarray(votes.argmax(0).astype(np.uint8))
    classes = len(train_ids)
    confusion = np.zeros(classes * (classes + 1), np.int64)  # truth (last row: ignored) x prediction
    for labels in _read_maps(val_labels, None):
        truth = lookup[labels].astype(np.int64)
        predicted = np.asarray(prior.resize(truth.shape[::-1], Image.Resampling.NEAREST))
        confusion += np.bincount((truth * classes + predicted).ravel(), minlength=confusion.size)
    scored = confusion.reshape(classes + 1, classes)[:-1]
    intersection, union = scored.diagonal(), scored.sum(0) + scored.sum(1) - scored.diagonal()
    if not union.any():
        raise UserError(
            f"No validation label map, the first being {val_labels[0]}, has a pixel of a known class."
        )
    return float(100 * np.mean(intersection[union > 0] / union[union > 0]))


def _read_maps(paths: Sequence[Path], size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    """uint8 (height, width) maps in order, resized to ``size`` by nearest neighbor, few at a time."""
    return in_threads(partial(_read_map, size=size), paths)


def _read_map(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    with Image.open(path) as image:
        if size is not None and image.size != size[::-1]:
            return np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST))
        return np.asarray(image)


def frequent_box_map(train_json: str | Path, val_json: str | Path) -> float:
    """bbox mAP in per cent (COCO's, IoU 0.50:0.95) of each class's most frequent training box in every image.

    The most frequent box of a class is that of its relative training boxes which overlaps most others with
    IoU >= 0.5 (ties: highest mean IoU). Score: the class's share of the training boxes.

    Raises:
        UserError: A JSON is missing or broken, or the training file has no boxes of the validation classes.
    """
    train = read_coco(train_json)
    val = read_coco(val_json)
    boxes = _relative_boxes(train)
    share = Counter({name: len(values) for name, values in boxes.items()})
    detections: list[dict[str, Any]] = []
    for category in val["categories"]:
        if category["name"] not in boxes:
            continue
        x0, y0, x1, y1 = _most_frequent(boxes[category["name"]])
        for image in val["images"]:
            width, height = image["width"], image["height"]
            detections.append(
                {
                    "image_id": image["id"],
                    "category_id": category["id"],
                    "bbox": [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height],
                    "score": share[category["name"]] / share.total(),
                }
            )
    if not detections:
        raise UserError(
            f"{train_json} has no box of a class of {val_json}. Use files with the same categories."
        )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = val
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(max(0.0, 100 * evaluation.stats[0]))


def _relative_boxes(content: dict[str, Any]) -> dict[str, np.ndarray]:
    """Boxes (n, 4) as x0, y0, x1, y1 in shares of the image, by class name, crowds left out."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    boxes: dict[str, list[list[float]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd", 0):
            width, height = sizes[annotation["image_id"]]
            x, y, w, h = annotation["bbox"]
            corners = [x / width, y / height, (x + w) / width, (y + h) / height]
            boxes.setdefault(names[annotation["category_id"]], []).append(corners)
    return {name: np.asarray(values, np.float32) for name, values in boxes.items()}


def _most_frequent(boxes: np.ndarray) -> list[float]:
    """The box of (n, 4) that overlaps most others with IoU >= 0.5."""
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_BOXES)).astype(int)]
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    iou = shared / np.maximum(area[:, None] + area[None, :] - shared, 1e-12)
    score = (iou >= 0.5).sum(1) + iou.mean(1)
    return [float(value) for value in boxes[score.argmax()]]
