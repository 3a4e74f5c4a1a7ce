"""What a predictor without eyes scores: the bar a trained model has to clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou

from mst_pretrain.data.files import in_threads
from mst_pretrain.runtime.errors import UserError

from ..data.layouts import CITYSCAPES_CLASSES
from ..data.pair_rules import IGNORED, cityscapes_label_maps
from .coco_scores import load_ground_truth, score_coco
from .segmentation_scores import SegmentationScores, confusion_matrix

MAX_SIDE = 512  # of the prior; larger maps vote and are predicted through nearest neighbour
MAX_BOXES = 3000  # per class; beyond this many, evenly spaced ones stand for all


def position_prior(root: str | Path, split: str, classes: Sequence[str]) -> SegmentationScores:
    """Score predicting, at each pixel, the class that is most frequent there in the training maps.

    Maps of another size are resized by nearest neighbor.

    Args:
        root: Data in Cityscapes' layout; the first training map's size, at most 512, is the prior's.
        split: The label maps to be predicted.
        classes: Names of Cityscapes; pixels of every other class are ignored.

    Raises:
        UserError: Images or label maps are missing, or there is no labelled pixel to score.
    """
    train, tested = (cityscapes_label_maps(root, part) for part in ("train", split))
    lookup = np.full(256, IGNORED, np.uint8)
    lookup[[CITYSCAPES_CLASSES.index(name) for name in classes]] = np.arange(len(classes))
    with Image.open(train[0]) as first:
        shrink = min(1.0, MAX_SIDE / max(first.size))
        size = (round(first.width * shrink), round(first.height * shrink))
    votes = np.zeros((len(classes), size[1], size[0]), np.int32)
    for labels in in_threads(partial(_read_map, size=size), train):
        for index in range(len(classes)):
            votes[index] += lookup[labels] == index
    prior = Image.fromarray(votes.argmax(0).astype(np.uint8))
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for labels in in_threads(_read_map, tested):
        predicted = np.asarray(prior.resize(labels.shape[::-1], Image.Resampling.NEAREST))
        matrix += confusion_matrix(predicted, lookup[labels], len(classes), IGNORED)
    if not matrix.any():
        raise UserError(f"No label map, the first being {tested[0]}, has a pixel of a known class.")
    return SegmentationScores(matrix, tuple(classes))


def _read_map(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 (height, width); ``size`` is (width, height)."""
    with Image.open(path) as image:
        return np.asarray(image.resize(size or image.size, Image.Resampling.NEAREST))


def frequent_box_map(train_json: str | Path, val_json: str | Path) -> float:
    """bbox mAP in per cent (COCO's, IoU 0.50:0.95) of each class's most frequent training box in every image.

    The most frequent box of a class is that of its relative training boxes which overlaps most others with
    IoU >= 0.5 (ties: highest mean IoU). Score: the class's share of the training boxes.

    Raises:
        UserError: A JSON cannot be used, or the training file has no boxes of the validation classes.
    """
    train, val = load_ground_truth(train_json), load_ground_truth(val_json)
    boxes = _relative_boxes(train)
    share = Counter({name: len(values) for name, values in boxes.items()})
    detections: list[dict[str, Any]] = []
    for category in val["categories"]:
        if category["name"] not in boxes:
            continue
        x0, y0, x1, y1 = _most_frequent(boxes[category["name"]])
        found = {"category_id": category["id"], "score": share[category["name"]] / share.total()}
        for image in val["images"]:
            width, height = image["width"], image["height"]
            box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
            detections.append({"image_id": image["id"], "bbox": box, **found})
    if not detections:
        raise UserError(
            f"{train_json} has no box of a class of {val_json}. Use files with the same categories."
        )
    return 100 * (score_coco(val, detections, "bbox").statistics["mAP"] or 0.0)


def _relative_boxes(content: dict[str, Any]) -> dict[str, np.ndarray]:
    """Boxes (n, 4) as x0, y0, x1, y1 in shares of the image, by class name, crowds left out."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    boxes: dict[str, list[list[float]]] = {}
    for annotation in content["annotations"]:
        if not annotation["iscrowd"]:
            width, height = sizes[annotation["image_id"]]
            x, y, w, h = annotation["bbox"]
            corners = [x / width, y / height, (x + w) / width, (y + h) / height]
            boxes.setdefault(names[annotation["category_id"]], []).append(corners)
    return {name: np.asarray(values, np.float32) for name, values in boxes.items()}


def _most_frequent(boxes: np.ndarray) -> list[float]:
    """The box of (n, 4) that overlaps most others with IoU >= 0.5."""
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_BOXES)).astype(int)]
    corners = torch.from_numpy(boxes)
    iou = np.nan_to_num(box_iou(corners, corners).numpy())  # a box without an area has none
    score = (iou >= 0.5).sum(1) + iou.mean(1)
    return [float(value) for value in boxes[score.argmax()]]
