"""The masks of a COCO file: what training or an evaluator could not use, and the area and extent of a sound mask."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

# Of each fault: what is wrong with the annotations that have it, and the remedy.
REMOVE = "Correct these masks, or remove these annotations."
SAME_SIZE = "Draw the masks on the images that they were annotated on, or export both in one size."
FAULTS = {
    "kind": ("have a mask that is neither a list of polygons nor run lengths", "Export them as COCO masks."),
    "numbers": ("have a mask with coordinates that are not finite numbers", REMOVE),
    "odd": ("have a polygon with an odd number of coordinates", "Write polygons as x, y, x, y, ..."),
    "points": ("have a polygon of less than three points", REMOVE),
    "outside": ("have a mask that lies outside its image", SAME_SIZE),
    "far": ("have a polygon that reaches farther out of its image than the image is large", SAME_SIZE),
    "size": ("have run lengths of another size than their image", SAME_SIZE),
    "sum": ("have run lengths that do not add up to height x width of their image", REMOVE),
    "runs": ("have run lengths that are not whole numbers from 0", REMOVE),
    "text": ("have compressed run lengths that cannot be decoded", REMOVE),
    "empty": ("have run lengths without a pixel of the object", REMOVE),
}


def mask_fault(mask: Any, height: int, width: int) -> str | None:
    """Why training or an evaluator could not use a mask: a key of :data:`FAULTS`, or None.

    Args:
        mask: A list of polygons ``[x, y, x, y, ...]``, or a dictionary with the ``size`` [height, width] and the
            ``counts`` of run lengths, in a list or compressed to text.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
    """
    if isinstance(mask, dict):
        return _run_fault(mask, height, width)
    if not isinstance(mask, list) or not mask or not all(isinstance(polygon, list) for polygon in mask):
        return "kind"
    for polygon in mask:
        if not are_numbers(polygon):
            return "numbers"
        if len(polygon) % 2:
            return "odd"
        if len(polygon) < 6:
            return "points"
    left, top, right, bottom = _corners(mask)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return "outside"
    if left < -width or top < -height or right > 2 * width or bottom > 2 * height:
        return "far"
    return None


def mask_area(mask: Any, height: int, width: int) -> float:
    """Number of pixels of a sound mask."""
    from pycocotools import mask as masks

    return float(masks.area(masks.merge(_encoded(mask, height, width))))


def mask_corners(mask: Any, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a sound mask, in pixels."""
    if isinstance(mask, list):
        return _corners(mask)
    from pycocotools import mask as masks

    x, y, w, h = masks.toBbox(masks.merge(_encoded(mask, height, width)))
    return float(x), float(y), float(x + w), float(y + h)


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all are finite numbers: not text, not true or false."""
    values = list(values)
    try:
        return set(map(type, values)) <= {int, float} and math.isfinite(sum(map(float, values)))
    except OverflowError:
        return False


def _corners(polygons: list[list[float]]) -> tuple[float, float, float, float]:
    return (
        min(min(polygon[0::2]) for polygon in polygons),
        min(min(polygon[1::2]) for polygon in polygons),
        max(max(polygon[0::2]) for polygon in polygons),
        max(max(polygon[1::2]) for polygon in polygons),
    )


def _encoded(mask: Any, height: int, width: int) -> list[Any]:
    from pycocotools import mask as masks

    if isinstance(mask, list):
        return list(masks.frPyObjects(mask, height, width))
    return [masks.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask]


def _run_fault(mask: dict[str, Any], height: int, width: int) -> str | None:
    counts = mask.get("counts")
    if not isinstance(counts, list | str) or not isinstance(mask.get("size"), list):
        return "kind"
    if mask["size"] != [height, width]:
        return "size"
    runs = _decompressed(counts) if isinstance(counts, str) else counts
    if runs is None:
        return "text"
    if not set(map(type, runs)) <= {int} or min(runs, default=0) < 0:
        return "runs"
    if sum(runs) != height * width:
        return "sum"
    return None if sum(runs[1::2]) else "empty"


def _decompressed(text: str) -> list[int] | None:
    """The run lengths of COCO's compressed text (maskApi.c, ``rleFrString``), or None.

    Each is written in groups of 5 bits, the lowest first, bit 5 set where another group follows, bit 4 of the last
    being the sign; from the fourth on, it is the difference from the last but one.
    """
    try:
        groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    is_last = (groups & 32) == 0
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or not is_last[-1]:
        return None
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 7 groups hold 35 bits; run lengths have 32
        return None
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    values = np.add.reduceat((groups & 31) << shifts, starts)
    values -= np.where(groups[ends] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return [int(value) for value in values]
