"""What a predictor without eyes scores: the bar a trained model has to clear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from .coco_scores import LIBRARIES, CocoScores, load_ground_truth, score_coco
from .segmentation_scores import SegmentationScores, confusion_matrix

Colors = Sequence[Sequence[int]]  # red, green, blue, label
MAX_SIDE = 512  # of the prior; larger maps vote and are predicted through nearest neighbour
MAX_BOXES = 3000  # per class; beyond this many, evenly spaced ones stand for all
BOXES, PRIOR = "most frequent boxes", "position prior"  # as tables and files name them


@dataclass(frozen=True)
class PositionPrior:
    """The class that is most frequent at each place of the training label maps.

    Attributes:
        labels: uint8 [H, W].
    """

    labels: np.ndarray

    @classmethod
    def of_maps(
        cls, maps: Sequence[tuple[Path, np.ndarray]], classes: int, colors: Sequence[Colors | None] = ()
    ) -> PositionPrior:
        """From label maps, which are resized to the first one's size, at most 512, by nearest neighbour.

        Args:
            maps: Files, each with the label of every value 0..255 that it may hold, uint8 [256]; 255 does not vote.
            classes: Their number.
            colors: Of each map, what its colors stand for, or None where it holds values; empty: none has colors.

        Raises:
            UserError: A map cannot be read.
        """
        with Image.open(maps[0][0]) as first:
            shrink = min(1.0, MAX_SIDE / max(first.size))
            size = (round(first.width * shrink), round(first.height * shrink))
        votes = np.zeros((classes, size[1], size[0]), np.int32)
        rows = zip((path for path, _ in maps), colors or [None] * len(maps), strict=True)
        values = in_threads(lambda row: _read_map(row[0], size, row[1]), list(rows))
        for labels, (_, lookup) in zip(values, maps, strict=True):
            named = lookup[labels]
            for index in range(classes):
                votes[index] += named == index
        return cls(votes.argmax(0).astype(np.uint8))

    def at(self, height: int, width: int) -> np.ndarray:
        """The prediction for a label map of this size, uint8 [height, width]."""
        return np.asarray(Image.fromarray(self.labels).resize((width, height), Image.Resampling.NEAREST))


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
    prior = PositionPrior.of_maps([(path, lookup) for path in train], len(classes))
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for labels in in_threads(_read_map, tested):
        matrix += confusion_matrix(prior.at(*labels.shape), lookup[labels], len(classes), IGNORED)
    if not matrix.any():
        raise UserError(f"No label map, the first being {tested[0]}, has a pixel of a known class.")
    return SegmentationScores(matrix, tuple(classes))


def _read_map(path: Path, size: tuple[int, int] | None = None, colors: Colors | None = None) -> np.ndarray:
    """uint8 (height, width), of 16 bits the lower 8 as mmseg has it, of ``colors`` their labels; ``size`` is (width,
    height)."""
    with Image.open(path) as image:
        if colors is not None:
            from ..data.color_maps import labels_of_colors  # imports mmseg

            resized = image.convert("RGB").resize(size or image.size, Image.Resampling.NEAREST)
            return labels_of_colors(np.asarray(resized), colors)
        return np.asarray(image.resize(size or image.size, Image.Resampling.NEAREST)).astype(np.uint8)


@dataclass(frozen=True)
class FrequentBoxes:
    """The most frequent training box of every class, in every image.

    The most frequent box of a class is that of its relative training boxes which overlaps most others with
    IoU >= 0.5 (ties: highest mean IoU). Score: the class's share of the training boxes.

    Attributes:
        boxes: x0, y0, x1, y1 in shares of the image, and the score, by class name.
    """

    boxes: Mapping[str, tuple[list[float], float]]

    @classmethod
    def of_boxes(cls, boxes: Mapping[str, np.ndarray]) -> FrequentBoxes:
        """From relative boxes [n, 4] by class name."""
        total = sum(len(values) for values in boxes.values())
        return cls(
            {
                name: (_most_frequent(values), len(values) / total)
                for name, values in boxes.items()
                if len(values)
            }
        )

    def detections(self, content: Mapping[str, Any], iou_type: str = "bbox") -> list[dict[str, Any]]:
        """In COCO's results format for every image of some annotations; as masks (``segm``) the boxes, filled."""
        from pycocotools import mask as masks

        found: list[dict[str, Any]] = []
        for category in content["categories"]:
            if category["name"] not in self.boxes:
                continue
            (x0, y0, x1, y1), score = self.boxes[category["name"]]
            for image in content["images"]:
                width, height = image["width"], image["height"]
                box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
                entry = {"image_id": image["id"], "category_id": category["id"], "score": score}
                shape = {"bbox": box}
                if iou_type == "segm":
                    shape = {"segmentation": masks.frPyObjects(np.array([box]), height, width)[0]}
                found.append(entry | shape)
        return found

    def scores(
        self,
        content: dict[str, Any],
        iou_type: str = "bbox",
        library: str = LIBRARIES[0],
        category_ids: Sequence[int] | None = None,
    ) -> CocoScores:
        """What :func:`score_coco` says of them."""
        return score_coco(content, self.detections(content, iou_type), iou_type, library, category_ids)


def frequent_box_map(train_json: str | Path, val_json: str | Path, iou_type: str = "bbox") -> float:
    """mAP in per cent (COCO's, IoU 0.50:0.95) of :class:`FrequentBoxes`.

    Raises:
        UserError: A JSON cannot be used, or the training file has no boxes of the validation classes.
    """
    train, val = load_ground_truth(train_json), load_ground_truth(val_json, iou_type == "segm")
    frequent = FrequentBoxes.of_boxes(_relative_boxes(train))
    if not {category["name"] for category in val["categories"]} & set(frequent.boxes):
        raise UserError(
            f"{train_json} has no box of a class of {val_json}. Use files with the same categories."
        )
    return 100 * (frequent.scores(val, iou_type).statistics["mAP"] or 0.0)


def _relative_boxes(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Boxes [n, 4] as x0, y0, x1, y1 in shares of the image, by class name, crowds left out."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    return relative_boxes(
        (names[annotation["category_id"]], _corners(annotation["bbox"]), sizes[annotation["image_id"]])
        for annotation in content["annotations"]
        if not annotation["iscrowd"]
    )


def _corners(box: Sequence[float]) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height


def relative_boxes(
    objects: Iterable[tuple[str, Sequence[float], tuple[int, int]]],
) -> dict[str, np.ndarray]:
    """Boxes [n, 4] in shares of their images by class name, of class, corners in pixels, and (width, height)."""
    boxes: dict[str, list[list[float]]] = {}
    for name, (x0, y0, x1, y1), (width, height) in objects:
        boxes.setdefault(name, []).append([x0 / width, y0 / height, x1 / width, y1 / height])
    return {name: np.asarray(values, np.float32) for name, values in boxes.items()}


def _most_frequent(boxes: np.ndarray) -> list[float]:
    """The box of (n, 4) that overlaps most others with IoU >= 0.5."""
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_BOXES)).astype(int)]
    corners = torch.from_numpy(boxes)
    iou = np.nan_to_num(box_iou(corners, corners).numpy())  # a box without an area has none
    score = (iou >= 0.5).sum(1) + iou.mean(1)
    return [float(value) for value in boxes[score.argmax()]]
