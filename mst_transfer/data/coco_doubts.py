"""What may be wrong with the annotations of a COCO file that can be used all the same: said, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Any

from .coco_masks import mask_area, mask_corners, mask_fault
from .coco_shapes import (
    FORM_OVERLAP,
    Content,
    Faults,
    corners_of,
    counted,
    extent,
    is_small,
    named,
    overlap_of,
)

FAR_SHARE = 0.01  # of the boxes; COCO's are tight, but for some of its smallest objects
AREA_SHARE = 0.1  # of the areas
AREA_SLACK = (0.5, 1.5)  # of the smaller, and of the larger, of the areas of mask and box
LEAST_FILLED = 0.1  # of a box without a mask, by an object that the area may be of


def doubts(content: Content, masks: bool) -> Faults:
    """Annotations that are there twice, areas of something else, boxes far from their masks, masks without a pixel.

    Args:
        content: A file whose values and shapes are sound.
        masks: All masks are sound; otherwise those that are not are passed over.
    """
    yield from _repeated(content)
    images = {image["id"]: image for image in content["images"]}
    far, bare, odd = [], [], []
    with_mask = large = 0
    for annotation in content["annotations"]:
        if is_small(annotation):
            continue
        mask, image = annotation.get("segmentation"), images[annotation["image_id"]]
        size, (_, _, width, height) = (image["height"], image["width"]), annotation["bbox"]
        areas = [LEAST_FILLED * width * height, width * height]
        if mask and (masks or mask_fault(mask, *size) is None):
            with_mask += 1
            corners = mask_corners(mask, *size)
            if overlap_of(corners_of(*annotation["bbox"]), corners) < FORM_OVERLAP:
                far.append(f"{named([annotation], 'bbox')[0]}, but the mask's is {extent(corners)}")
            areas[0] = _polygons_area(mask) if isinstance(mask, list) else mask_area(mask, *size)
            if areas[0] < 1 and not mask_area(mask, *size):
                bare.append(annotation)
                continue
        large += 1
        if not AREA_SLACK[0] * min(areas) <= annotation["area"] <= AREA_SLACK[1] * max(areas):
            odd.append(annotation)
    if len(far) > FAR_SHARE * with_mask:
        what = f"of {with_mask} boxes are far from the extents of their masks (overlap below {FORM_OVERLAP})"
        yield from counted(
            far, what, "Correct the boxes, or the masks; loose boxes are trained as they are drawn."
        )
    yield from counted(named(bare), "masks cover no pixel", "Draw them anew, or remove these annotations.")
    if len(odd) > AREA_SHARE * large:
        what = (
            f"of {large} areas are not those of masks or boxes in pixels, so that mAP by size would be wrong"
        )
        yield from counted(named(odd, "area"), what, "Correct them, or remove 'area': it is computed then.")


def _repeated(content: Content) -> Faults:
    """Of an object that is there twice only one is found, and the other one lowers the score."""
    first: dict[tuple[Any, ...], list[Content]] = {}
    again = []
    for annotation in content["annotations"]:
        if not annotation["iscrowd"]:
            key = annotation["image_id"], annotation["category_id"], *annotation["bbox"]
            same = first.setdefault(key, [])
            if any(annotation.get("segmentation") == other.get("segmentation") for other in same):
                again.append(annotation)
            else:
                same.append(annotation)
    what = "annotations repeat another one's image, category, box and mask, and score as objects that are not found"
    yield from counted(named(again), what, "Keep one of each.")


def _polygons_area(polygons: Sequence[Sequence[float]]) -> float:
    """The shoelace formula; parts that overlap are counted for each."""
    area = 0.0
    for polygon in polygons:
        xs, ys = polygon[0::2], polygon[1::2]
        area += abs(sum(map(mul, xs, [*ys[1:], ys[0]])) - sum(map(mul, [*xs[1:], xs[0]], ys))) / 2
    return area
