"""Boxes and masks of a COCO file against their images: rules over the parsed file, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from mst_pretrain.data.files import first_of

from .coco_masks import FAULTS, SAME_SIZE, mask_corners, mask_fault
from .coco_repair import BOX_SLACK

# Of boxes and the extents of their masks, in the median: of tight boxes it is near 1
FORM_OVERLAP = 0.5  # of boxes in another form, as which they reach it
LEAST_OVERLAP = 0.2  # of loose boxes; with less they have nothing to do with their masks
FORM_SAMPLE = 1000  # annotations by which the form of boxes is told
COCO_FORM, TRANSPOSED = "[x, y, width, height]", "[y, x, height, width]"
FORMS: dict[str, Callable[..., list[float]]] = {  # others, to left, top, right and bottom
    "[center x, center y, width, height]": lambda x, y, w, h: [x - w / 2, y - h / 2, x + w / 2, y + h / 2],
    TRANSPOSED: lambda y, x, h, w: [x, y, x + w, y + h],
    "[left, top, right, bottom]": lambda left, top, right, bottom: [left, top, right, bottom],
    "[top, left, bottom, right]": lambda top, left, bottom, right: [left, top, right, bottom],
    "[left, right, top, bottom]": lambda left, right, top, bottom: [left, top, right, bottom],
    "[x, y, height, width]": lambda x, y, h, w: [x, y, x + w, y + h],
}
MASK_FAULTS = FAULTS | {"elsewhere": ("have a mask that does not touch their box", SAME_SIZE)}

Content = dict[str, Any]  # of read_coco
Corners = Sequence[float]  # left, top, right, bottom
Faults = Iterator[tuple[str, str]]  # what is wrong with entries, with number and first examples; the remedy


def mask_problems(content: Content) -> Faults:
    """A mask that is there must be one that mmdet and both evaluators can use, and must overlap its box.

    Where most boxes are far from the extents of their masks, they are written in another form.
    """
    images = {image["id"]: image for image in content["images"]}
    found: dict[str, list[Content]] = {}
    overlaps: list[float] = []
    pairs: list[tuple[Content, Corners]] = []
    for annotation in content["annotations"]:
        mask, image = annotation.get("segmentation"), images[annotation["image_id"]]
        if mask:
            size = (image["height"], image["width"])
            fault = mask_fault(mask, *size)
            if fault is None and not is_small(annotation):
                corners = mask_corners(mask, *size)
                fault = None if _overlap(annotation["bbox"], corners) else "elsewhere"
                overlaps.append(_iou(_corners_of(*annotation["bbox"]), corners))
                pairs += [(annotation, corners)] if len(pairs) < FORM_SAMPLE else []
            if fault is not None:
                found.setdefault(fault, []).append(annotation)
    overlap = median(overlaps) if overlaps else 1.0
    if overlap < FORM_OVERLAP:
        form = _other_form(pairs)
        if form or (overlap < LEAST_OVERLAP and "elsewhere" not in found):
            found.pop("elsewhere", None)
            yield _form_fault(form, *pairs[0])
    for fault, faulty in found.items():
        what, remedy = MASK_FAULTS[fault]
        yield from counted(named(faulty), f"annotations {what}", remedy)


def _other_form(pairs: Sequence[tuple[Content, Corners]]) -> str:
    """The form in which boxes are those of their masks, or nothing."""
    fits = {
        form: median(_iou(corners_of(*annotation["bbox"]), corners) for annotation, corners in pairs)
        for form, corners_of in FORMS.items()
    }
    best = max(fits, key=lambda form: fits[form])
    return best if fits[best] >= FORM_OVERLAP else ""


def _form_fault(form: str, annotation: Content, corners: Corners) -> tuple[str, str]:
    """What is said of boxes in this form, with an example."""
    left, top, right, bottom = corners
    mask = [round(value, 1) for value in (left, top, right - left, bottom - top)]
    example = f"{named([annotation], 'bbox')[0]}, but the mask's is {mask}"
    written = f"; as {form} they are" if form else ""
    if form == TRANSPOSED and isinstance(annotation["segmentation"], dict):
        written += ", or the run lengths go along the rows"
    what = f"most boxes are not around their masks as {COCO_FORM}{written}: {example}"
    return what, f"Write them as {COCO_FORM}, from the upper left corner."


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


def _corners_of(x: float, y: float, width: float, height: float) -> Corners:
    return x, y, x + width, y + height


def _iou(box: Sequence[float], corners: Sequence[float]) -> float:
    """Intersection over union of two boxes of corners, a pixel added to every side."""
    across = min(box[2], corners[2]) - max(box[0], corners[0]) + 1
    down = min(box[3], corners[3]) - max(box[1], corners[1]) + 1
    sizes = [(right - left + 1, bottom - top + 1) for left, top, right, bottom in (box, corners)]
    if across <= 0 or down <= 0 or min(map(min, sizes)) <= 0:
        return 0.0
    return across * down / (sum(width * height for width, height in sizes) - across * down)


def counted(examples: Sequence[str], what: str, remedy: str) -> Faults:
    """A fault with the number of its examples and the first of them; none where there is no example."""
    if examples:
        yield f"{len(examples)} {what}: {first_of(examples)}", remedy


def named(annotations: Sequence[dict[str, Any]], field: str = "") -> list[str]:
    """What messages call annotations, with the value of a field."""
    return [f"annotation {a['id']}" + (f" -> {field} {a[field]}" if field else "") for a in annotations]
