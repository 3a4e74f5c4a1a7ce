"""What makes the entries of a COCO JSON unusable: a sentence each, with number, first examples and remedy."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from mst_pretrain.data.files import first_of

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
}


def coco_faults(content: dict[str, Any], masks: bool) -> list[str]:
    """Faults of images, categories and annotations; later ones only where fields and ids are sound.

    Args:
        content: Of :func:`read_coco`.
        masks: Every annotation must have one.
    """
    return _field_faults(content) or id_faults(content) or _entry_faults(content, masks)


def _field_faults(content: dict[str, Any]) -> list[str]:
    for key, fields in FIELDS.items():
        for entry in content[key]:
            missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if missing:
                return [
                    f"an entry of '{key}' lacks {', '.join(missing)}. It needs {', '.join(fields)}: "
                    "export it as COCO instance annotations."
                ]
    return []


def id_faults(content: dict[str, Any]) -> list[str]:
    """Ids must be whole numbers, each used once; of annotations from 1.

    COCO's evaluation takes a match with annotation 0 for none; of two equal ids everybody forgets one.
    """
    faults = []
    for key in FIELDS:
        first = 1 if key == "annotations" else 0
        ids = [entry.get("id") for entry in content[key]]
        whole = [i for i in ids if isinstance(i, int) and not isinstance(i, bool) and i >= first]
        strange = [repr(i) for i in ids if not isinstance(i, int) or isinstance(i, bool) or i < first]
        twice = [repr(i) for i, count in Counter(whole).items() if count > 1]
        if strange or twice:
            faults.append(
                f"{len(strange) + len(twice)} ids of '{key}' are used twice or are not whole numbers from {first}: "
                f"{first_of([*strange, *twice])}. Training and evaluation would confuse them: number the {key} 1, 2, "
                "3, ..., and correct what refers to them."
            )
    return faults


def _entry_faults(content: dict[str, Any], masks: bool) -> list[str]:
    images = {image["id"] for image in content["images"]}
    counts = Counter(str(category["name"]) for category in content["categories"])
    categories = {category["id"] for category in content["categories"]}
    annotations = content["annotations"]
    twice = [f"'{name}'" for name, count in counts.items() if count > 1]
    stray = [a for a in annotations if not _is_number(a["category_id"]) or a["category_id"] not in categories]
    lost = [a for a in annotations if not _is_number(a["image_id"]) or a["image_id"] not in images]
    bent = [a for a in annotations if not _is_box(a["bbox"]) or not _is_number(a["area"])]
    bare = [a for a in annotations if masks and not _is_mask(a.get("segmentation"))]
    checks = (
        (twice, f"category names are used twice: {first_of(twice)}. Rename or merge these categories."),
        (
            stray,
            "annotations have a category that its categories lack: "
            f"{_first(stray, 'category_id')}. Add the category or correct the ids.",
        ),
        (
            lost,
            "annotations belong to images that are not in its images: "
            f"{_first(lost, 'image_id')}. Add the images or remove these annotations.",
        ),
        (
            bent,
            "boxes are not [x, y, width, height] in finite numbers, with an area: "
            f"{_first(bent, 'bbox')}. Correct them.",
        ),
        (
            bare,
            "annotations have no mask ('segmentation' absent, empty, or of less than three points): "
            f"{_first(bare)}. Add the masks, remove these annotations, or train boxes only (docs/own_data.md).",
        ),
    )
    return [f"{len(found)} {what}" for found, what in checks if found]


def is_left_out(annotation: dict[str, Any]) -> bool:
    """mmdet drops an annotation without an area, or with a box of less than a pixel."""
    _, _, width, height = annotation["bbox"]
    return annotation["area"] <= 0 or width < 1 or height < 1


def _first(annotations: list[dict[str, Any]], field: str | None = None) -> str:
    return first_of(
        [f"annotation {a['id']}" + (f" -> {field} {a[field]}" if field else "") for a in annotations]
    )


def _is_box(box: Any) -> bool:
    """Four finite numbers."""
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_mask(mask: Any) -> bool:
    """Run lengths, or one polygon that mmdet does not drop."""
    if isinstance(mask, dict):
        return "counts" in mask and "size" in mask
    return isinstance(mask, list) and any(
        isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in mask
    )
