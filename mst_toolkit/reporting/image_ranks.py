"""A score for every image of ``per_image.npz``, and which images are the best, the median and the worst ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

THRESHOLD = 0.3  # of a detection's score, as the pictures draw them
MEANING = {
    "detection": "F1 at IoU 0.5 of the detections with a score of at least 0.3",
    "segmentation": "mean IoU of the classes in the image",
}


def image_scores(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """One score per image in per cent, float64 [N], see :data:`MEANING`; NaN where an image has nothing to score.

    An image without objects has 100 where nothing is found in it, and 0 where something is.
    """
    count, classes = len(arrays["images"]), len(arrays["classes"])
    if str(arrays["task"]) == "detection":
        kept = (arrays["scores"] >= THRESHOLD) & (arrays["ignored"] & 1 == 0)
        image = arrays["image"][kept]
        found = np.bincount(image, minlength=count)
        right = np.bincount(image, weights=arrays["hit"][kept] & 1, minlength=count)
        whole = found + arrays["objects"].sum(1)
        return 100 * np.divide(2 * right, whole, out=np.ones(count), where=whole > 0)
    matrices = np.zeros((count, classes, classes), np.int64)
    np.add.at(matrices, (arrays["image"], arrays["truth"], arrays["predicted"]), arrays["count"])
    right = np.einsum("nii->ni", matrices).astype(np.float64)
    whole = matrices.sum(1) + matrices.sum(2) - right
    iou = np.divide(right, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    known = ~np.isnan(iou)
    total = np.where(known, iou, 0).sum(1)
    return 100 * np.divide(total, known.sum(1), out=np.full(count, np.nan), where=known.any(1))


def best_median_worst(scores: np.ndarray, count: int = 8) -> dict[str, list[int]]:
    """Places of the best, the median and the worst images, at most ``count`` each and none in two groups.

    Equal scores keep their order. With fewer than three times ``count`` images, the groups are as large as a third.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])]
    size = min(count, max(1, len(order) // 3))
    best, worst = order[:size], order[size:][::-1][:size]
    rest = order[size : len(order) - len(worst)]
    start = max(0, (len(rest) - size) // 2)
    groups = {"best": best, "median": rest[start : start + size], "worst": worst}
    return {name: places.tolist() for name, places in groups.items() if len(places)}


def confusion(arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Confusion matrix int64 [C, C], rows are the truth; of a detection [C + 1, C + 1], the background last.

    None where the arrays hold neither pairs of classes nor a matrix.
    """
    if "confusion" in arrays:
        return np.asarray(arrays["confusion"])
    if "truth" not in arrays:
        return None
    matrix = np.zeros((len(arrays["classes"]),) * 2, np.int64)
    np.add.at(matrix, (arrays["truth"], arrays["predicted"]), arrays["count"])
    return matrix


def match_paths(names: Sequence[str], paths: Sequence[Path]) -> dict[int, int]:
    """Place of the path that ends as a name, by the name's place; a name that fits none or several is left out."""
    by_name: dict[str, list[int]] = {}
    for place, path in enumerate(paths):
        by_name.setdefault(path.name, []).append(place)
    found = {}
    for number, name in enumerate(names):
        parts = Path(str(name)).parts
        fitting = by_name.get(parts[-1], []) if parts else []
        if len(fitting) > 1:
            fitting = [place for place in fitting if paths[place].parts[-len(parts) :] == parts]
        if len(fitting) == 1:
            found[number] = fitting[0]
    return found


def spread(total: int, count: int) -> list[int]:
    """At most ``count`` places of ``total``, evenly spread."""
    return sorted({int(number * total / count) for number in range(count)}) if total else []
