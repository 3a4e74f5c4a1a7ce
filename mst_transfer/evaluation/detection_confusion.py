"""What a detector takes for what: detections and objects are matched whatever their classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from .matching import box_and_mask_iou

SCORE, IOU = 0.3, 0.5


def detection_confusion(
    content: dict[str, Any],
    results: Sequence[dict[str, Any]],
    iou_type: str,
    category_ids: Sequence[int],
    score: float = SCORE,
    iou: float = IOU,
) -> np.ndarray:
    """True class by predicted class, with the background as the last of both.

    By falling score, each detection takes the free object of any class that it overlaps most, with an IoU of at least
    ``iou``; of equal overlaps one of its own class. What takes none is found on the background, unless half of it
    lies on a crowd; an object that nothing takes is missed.

    Args:
        content: Sound instance annotations, as ``load_ground_truth`` reads them.
        results: Detections in COCO's results format.
        iou_type: ``bbox`` or ``segm``.
        category_ids: Category id by label.
        score: Least score of a detection that counts, 0 to 1.
        iou: Least overlap, 0 to 1.

    Returns:
        int64 [C + 1, C + 1]: rows are the truth, columns the prediction.
    """
    label = {category: place for place, category in enumerate(category_ids)}
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    truth: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
    found: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["category_id"] in label:
            truth[annotation["image_id"]].append(annotation)
    for result in results:
        if result["category_id"] in label and result["score"] >= score:
            found[result["image_id"]].append(result)
    nothing = len(label)
    matrix = np.zeros((nothing + 1, nothing + 1), np.int64)
    for image in {*truth, *found}:
        objects = truth[image]
        detections = sorted(found[image], key=lambda result: -result["score"])
        taken = _taken(objects, detections, iou_type, sizes[image], iou)
        for result, place in zip(detections, taken, strict=True):
            if place is not None:
                row = nothing if place < 0 else label[objects[place]["category_id"]]
                matrix[row, label[result["category_id"]]] += 1
        missed = {place for place, one in enumerate(objects) if not one["iscrowd"]} - set(taken)
        for place in missed:
            matrix[label[objects[place]["category_id"]], nothing] += 1
    return matrix


def _taken(
    objects: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    iou_type: str,
    size: tuple[int, int],
    least: float,
) -> list[int | None]:
    """Place of the object that each detection takes; -1 where it takes none, None where it lies on a crowd."""
    if not objects or not detections:
        return [-1] * len(detections)
    crowd = np.array([bool(one["iscrowd"]) for one in objects])
    overlaps = box_and_mask_iou(objects, detections, crowd, iou_type, size)
    classes = np.array([one["category_id"] for one in objects])
    free, taken = ~crowd, list[int | None]()
    for result, row in zip(detections, overlaps, strict=True):
        values = np.where(free & (row >= least), row, -1.0)
        best = int(np.lexsort((classes == result["category_id"], values))[-1])
        if values[best] >= 0:
            free[best] = False
            taken.append(best)
        else:
            taken.append(None if (row[crowd] >= least).any() else -1)
    return taken
