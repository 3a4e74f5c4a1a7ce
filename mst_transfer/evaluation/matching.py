"""COCO's matching of detections and objects, kept image by image, so that any choice of images can be scored again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of COCO's evaluation (https://cocodataset.org/#detection-eval)
MOST = 100  # detections per image and class
PRECISION = 1e-10  # pycocotools takes an IoU of 1 at a threshold of 1 - 1e-10


@dataclass(frozen=True)
class Matches:
    """Every detection that COCO counts, N images, C classes, E detections, objects of all sizes.

    Attributes:
        image_ids: Ids of the images by place, rising; int64 [N].
        scores: float64 [E].
        image: Place of the detection's image; int32 [E]. Detections are ordered by image, then by falling score.
        label: Place of its category in the category ids; int32 [E].
        hit: Bit t is set where it finds an object at ``THRESHOLDS[t]``; uint16 [E].
        ignored: Bit t is set where it does not count at ``THRESHOLDS[t]``, since it lies on a crowd; uint16 [E].
        objects: Objects that can be found, without crowds; int32 [N, C].
    """

    image_ids: np.ndarray
    scores: np.ndarray
    image: np.ndarray
    label: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def match_detections(
    content: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: str, category_ids: Sequence[int]
) -> Matches:
    """Match as ``COCOeval.evaluateImg`` of pycocotools does, for objects of every size.

    Args:
        content: Sound instance annotations, as ``load_ground_truth`` reads them.
        results: Detections in COCO's results format.
        iou_type: ``bbox`` or ``segm``.
        category_ids: Category id by label.
    """
    images = sorted(content["images"], key=lambda image: image["id"])
    sizes = [(image["height"], image["width"]) for image in images]
    place = {image["id"]: index for index, image in enumerate(images)}
    label = {category: index for index, category in enumerate(category_ids)}
    objects = np.zeros((len(images), len(category_ids)), np.int32)
    truth: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["category_id"] in label:
            cell = place[annotation["image_id"]], label[annotation["category_id"]]
            truth[cell].append(annotation)
            objects[cell] += not annotation["iscrowd"]
    found: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        if result["category_id"] in label:
            found[place[result["image_id"]], label[result["category_id"]]].append(result)
    columns: list[tuple[np.ndarray, ...]] = []
    for cell in sorted(found):
        detections = found[cell]
        scores = np.array([detection["score"] for detection in detections], np.float64)
        order = np.argsort(-scores, kind="stable")[:MOST]
        best = [detections[index] for index in order]
        flags = _match(truth.get(cell, []), best, iou_type, sizes[cell[0]])
        columns.append((scores[order], *(np.full(len(best), value, np.int32) for value in cell), *flags))
    empty = (np.zeros(0), *(np.zeros(0, kind) for kind in (np.int32, np.int32, np.uint16, np.uint16)))
    scores, image, labels, hit, ignored = (
        np.concatenate(parts) for parts in zip(empty, *columns, strict=True)
    )
    ids = np.array([image["id"] for image in images], object)
    return Matches(ids, scores, image, labels, hit, ignored, objects)


def _match(
    truth: list[dict[str, Any]], found: list[dict[str, Any]], iou_type: str, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """``hit`` and ``ignored`` of detections by falling score, uint16 [D], among objects of one class of one image.

    A detection takes the free object with the largest IoU of at least the threshold, of equals the last; where there is
    none, a crowd, which stays free.
    """
    thresholds, count = len(THRESHOLDS), len(found)
    hit, ignored = np.zeros((thresholds, count), bool), np.zeros((thresholds, count), bool)
    if truth:
        truth = sorted(truth, key=lambda annotation: bool(annotation["iscrowd"]))  # crowds last
        crowd = np.array([bool(annotation["iscrowd"]) for annotation in truth])
        iou = box_and_mask_iou(truth, found, crowd, iou_type, size)
        least = np.minimum(THRESHOLDS, 1 - PRECISION)[:, None]
        free = np.ones((thresholds, len(truth)), bool)
        rows = np.arange(thresholds)
        for index in range(count):
            reached = free & (iou[index] >= least)
            for part, flags in ((~crowd, hit), (crowd, ignored)):
                values = np.where(reached & part, iou[index], -1.0)
                last_best = len(truth) - 1 - values[:, ::-1].argmax(1)
                taken = (values[rows, last_best] >= 0) & ~hit[:, index]
                flags[:, index] = taken
                if flags is hit:
                    free[rows[taken], last_best[taken]] = False
    bits = (1 << np.arange(thresholds, dtype=np.uint16))[:, None]
    return (hit * bits).sum(0).astype(np.uint16), (ignored * bits).sum(0).astype(np.uint16)


def box_and_mask_iou(
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
    crowd: np.ndarray,
    iou_type: str,
    size: tuple[int, int],
) -> np.ndarray:
    """Overlap of detections and objects, float64 [D, G]; of a crowd the share of the detection that it covers, as COCO
    has it."""
    from pycocotools import mask as masks

    if iou_type == "bbox":
        pairs: list[Any] = [
            np.array([entry["bbox"] for entry in part], np.float64) for part in (found, truth)
        ]
    else:
        pairs = [[entry["segmentation"] for entry in found]]
        pairs.append([_as_rle(annotation["segmentation"], size) for annotation in truth])
    return np.asarray(masks.iou(*pairs, crowd.astype(np.uint8)))


def _as_rle(segmentation: Any, size: tuple[int, int]) -> Any:
    """Polygons, or a mask in run lengths, as the compressed mask that pycocotools compares."""
    from pycocotools import mask as masks

    if isinstance(segmentation, list):
        return masks.merge(masks.frPyObjects(segmentation, *size))
    return (
        masks.frPyObjects(segmentation, *size) if isinstance(segmentation["counts"], list) else segmentation
    )
