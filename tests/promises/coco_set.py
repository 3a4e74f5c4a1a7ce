"""The clean COCO set that the mutators change: bright rectangles and discs on dark noise."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.promises.verdicts import Content, Counts

Entry = dict[str, Any]
WIDTH, HEIGHT = 192, 144
CLASSES = ("box", "disc")
# The verdicts hold for a training config with masks and with this filter, which is that of mmdet's own configs.
FILTER = {"filter_empty_gt": True, "min_size": 32}
IMAGE_FOLDER = "train2017"
ANNOTATION_FILE = "annotations/instances_train2017.json"
# An object is small or medium by any definition of its area: box, polygon or pixels (COCO's limit is 32 x 32).
SIDES = ((20, 25), (44, 54))


def rectangle(x: int, y: int, w: int, h: int) -> list[float]:
    """Returns the polygon of a rectangle as a flat list x, y, x, y, ..."""
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def ellipse(x: int, y: int, w: int, h: int) -> list[float]:
    """Returns a polygon of 24 corners that touches all four sides of the box, as a flat list."""
    corners = []
    for step in range(24):
        angle = 2 * math.pi * step / 24
        corners += [
            round(x + w / 2 + w / 2 * math.cos(angle), 2),
            round(y + h / 2 + h / 2 * math.sin(angle), 2),
        ]
    return corners


def _boxes(rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Draws three to five boxes that do not overlap; the first one touches the right edge of the image."""
    wanted = int(rng.integers(3, 6))
    found: list[tuple[int, int, int, int]] = []
    while len(found) < wanted:
        low, high = SIDES[len(found) % 2]
        w, h = (int(side) for side in rng.integers(low, high, 2))
        x = WIDTH - w if not found else int(rng.integers(2, WIDTH - w - 2))
        y = int(rng.integers(2, HEIGHT - h - 2))
        if all(x >= a + c or a >= x + w or y >= b + d or b >= y + h for a, b, c, d in found):
            found.append((x, y, w, h))
    return found


def clean_coco(root: Path, seed: int = 0) -> dict[str, Any]:
    """Writes 12 images with three to five objects each, and their annotation file, below `root`.

    Every image has a rectangle at its right edge and at least one disc. Boxes and areas are those of the polygons.

    Returns:
        The content of the annotation file.
    """
    rng = np.random.default_rng(seed)
    folder = root / IMAGE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    images: list[Entry] = []
    annotations: list[Entry] = []
    for image_id in range(1, 13):
        picture = Image.fromarray(rng.integers(0, 70, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(picture)
        for index, (x, y, w, h) in enumerate(_boxes(rng)):
            is_disc = index == 1 or (index > 1 and rng.random() < 0.5)
            corners = [x, y, x + w - 1, y + h - 1]
            if is_disc:
                draw.ellipse(corners, fill=(60, 220, 90))
            else:
                draw.rectangle(corners, fill=(230, 60, 60))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 2 if is_disc else 1,
                    "bbox": [x, y, w, h],
                    "area": round(math.pi * w * h / 4, 1) if is_disc else w * h,
                    "iscrowd": 0,
                    "segmentation": [ellipse(x, y, w, h) if is_disc else rectangle(x, y, w, h)],
                }
            )
        name = f"scene{image_id:04d}.jpg"
        picture.save(folder / name, quality=90)
        images.append({"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT})
    content: Content = {
        "info": {"description": "boxes and discs", "year": 2026},
        "licenses": [{"id": 1, "name": "none", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": 1, "name": "box", "supercategory": "shape"},
            {"id": 2, "name": "disc", "supercategory": "shape"},
        ],
    }
    path = root / ANNOTATION_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return content


def used_counts(clean: Content, changed: Content) -> Counts:
    """Counts what a training uses of the changed content, by the rules of mmdet's CocoDataset.

    An object is used unless it is marked `ignore` or crowd, has a side below one pixel, or belongs to a category that
    the config leaves out. An image is used if it is at least FILTER["min_size"] pixels wide and high and has an object
    of the config's classes. No mutator leaves an image whose objects are all ignored or crowd: there the number
    of images would be a matter of definition.
    """
    del clean
    category_ids = {c["id"] for c in changed["categories"] if c["name"] in CLASSES}
    sizes = {image["id"]: min(image["width"], image["height"]) for image in changed["images"]}
    large = {image_id for image_id, side in sizes.items() if side >= FILTER["min_size"]}
    kept = [a for a in changed["annotations"] if a["category_id"] in category_ids and a["image_id"] in large]
    used = [
        a
        for a in kept
        if not a.get("ignore") and not a.get("iscrowd") and min(a["bbox"][2], a["bbox"][3]) >= 1
    ]
    return {"images": len({a["image_id"] for a in kept}), "objects": len(used)}
