"""Boxes and masks of a COCO file against their images: rules over the parsed file, and what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mst_pretrain.data.files import first_of

from .coco_masks import FAULTS, SAME_SIZE, mask_corners, mask_fault
from .coco_repair import BOX_SLACK

MASK_FAULTS = FAULTS | {"elsewhere": ("have a mask that does not touch their box", SAME_SIZE)}

Content = dict[str, Any]  # of read_coco
Faults = Iterator[tuple[str, str]]  # what is wrong with entries, with number and first examples; the remedy


def mask_problems(content: Content) -> Faults:
    """A mask that is there must be one that mmdet and both evaluators can use, and must overlap its box."""
    images = {image["id"]: image for image in content["images"]}
    found: dict[str, list[Content]] = {}
    for annotation in content["annotations"]:
        mask, image = annotation.get("segmentation"), images[annotation["image_id"]]
        if mask:
            size = (image["height"], image["width"])
            fault = mask_fault(mask, *size)
            if fault is None and not is_small(annotation):
                fault = None if _overlap(annotation["bbox"], mask_corners(mask, *size)) else "elsewhere"
            if fault is not None:
                found.setdefault(fault, []).append(annotation)
    for fault, faulty in found.items():
        what, remedy = MASK_FAULTS[fault]
        yield from counted(named(faulty), f"annotations {what}", remedy)


def corner_box_problems(content: Content) -> Faults:
    """Boxes that leave their image as [x, y, width, height] and that all fit as two corners are two corners."""
    images = {image["id"]: image for image in content["images"]}
    sized = [(a, images[a["image_id"]]) for a in content["annotations"]]
    outside = [a for a, image in sized if reach(a, image) > BOX_SLACK]
    if outside and all(_is_corners(annotation["bbox"], image) for annotation, image in sized):
        what = "boxes leave their image, and all boxes fit as [left, top, right, bottom]"
        yield from counted(named(outside, "bbox"), what, "Write them as [x, y, width, height].")


def tiny_box_problems(content: Content) -> Faults:
    """Where no box has a pixel, they are shares of the image or lost."""
    annotations = content["annotations"]
    if all(map(is_small, annotations)):
        what = "boxes, which are all there are, are smaller than a pixel"
        yield from counted(named(annotations, "bbox"), what, "Write them as [x, y, width, height] in pixels.")


def is_small(annotation: dict[str, Any]) -> bool:
    """The box is smaller than a pixel."""
    _, _, width, height = annotation["bbox"]
    return bool(width < 1 or height < 1)


def reach(annotation: dict[str, Any], image: dict[str, Any]) -> float:
    """How far a box reaches out of its image, in pixels; negative inside."""
    x, y, width, height = annotation["bbox"]
    return float(max(-x, -y, x + width - image["width"], y + height - image["height"]))


def _is_corners(box: Sequence[float], image: dict[str, Any]) -> bool:
    """Whether a box could be [left, top, right, bottom] within its image."""
    left, top, right, bottom = box
    within = right <= image["width"] + BOX_SLACK and bottom <= image["height"] + BOX_SLACK
    return left < right and top < bottom and within


def _overlap(box: Sequence[float], corners: Sequence[float]) -> bool:
    """Whether a box [x, y, width, height] meets [left, top, right, bottom], with some pixels of slack."""
    x, y, width, height = box
    left, top, right, bottom = corners
    apart = max(left - x - width, top - y - height, x - right, y - bottom)
    return bool(apart <= BOX_SLACK)


def counted(examples: Sequence[str], what: str, remedy: str) -> Faults:
    """A fault with the number of its examples and the first of them; none where there is no example."""
    if examples:
        yield f"{len(examples)} {what}: {first_of(examples)}", remedy


def named(annotations: Sequence[dict[str, Any]], field: str = "") -> list[str]:
    """What messages call annotations, with the value of a field."""
    return [f"annotation {a['id']}" + (f" -> {field} {a[field]}" if field else "") for a in annotations]
