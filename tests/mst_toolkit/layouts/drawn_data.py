"""Tiny data sets in every layout, written with Pillow and json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 32
ROBOFLOW = "_annotations.coco.json"


def picture(path: Path, seed: int = 0) -> None:
    """A noisy JPEG or PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def coco(
    images: Sequence[str], names: Sequence[str], per_image: int = 2, polygons: bool = True, **changes: Any
) -> dict[str, Any]:
    """Content of a COCO file: object k of image i is of class (i + k) modulo their number."""
    annotations: list[dict[str, Any]] = []
    for place in range(len(images)):
        for number in range(per_image):
            x, y = 2 + 10 * number, 3 + number
            entry = {
                "id": len(annotations) + 1,
                "image_id": place + 1,
                "category_id": 1 + (place + number) % len(names),
                "bbox": [x, y, 8, 6],
                "area": 48,
                "iscrowd": 0,
                "segmentation": [[x, y, x + 8, y, x + 8, y + 6, x, y + 6]] if polygons else [],
            }
            annotations.append(entry | changes)
    return {
        "images": [
            {"id": place + 1, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for place, name in enumerate(images)
        ],
        "annotations": annotations,
        "categories": [{"id": place + 1, "name": name} for place, name in enumerate(names)],
    }


def write_coco(path: Path, content: dict[str, Any], folder: Path) -> None:
    """The JSON, and a picture for each of its images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    for image in content["images"]:
        picture(folder / image["file_name"], image["id"])


def roboflow(root: Path, **changes: Any) -> Path:
    """6 train and 3 validation images with Roboflow's pseudo-class, ids from 0 and without areas."""
    for split, count in (("train", 6), ("valid", 3)):
        content = coco([f"{split}_{i}.jpg" for i in range(count)], ["scratch", "dent"], **changes)
        content["categories"].insert(0, {"id": 0, "name": "parts", "supercategory": "none"})
        for number, annotation in enumerate(content["annotations"]):
            annotation["id"] = number
            del annotation["area"]
        write_coco(root / split / ROBOFLOW, content, root / split)
    return root


def coco_layout(
    root: Path, names: Sequence[str] = ("cat", "dog"), val_names: Sequence[str] | None = None
) -> Path:
    """COCO's own folders, 4 train and 2 validation images."""
    for split, count, own in (("train", 4, names), ("val", 2, val_names or names)):
        content = coco([f"{i:012d}.jpg" for i in range(count)], own)
        write_coco(root / f"annotations/instances_{split}2017.json", content, root / f"{split}2017")
    return root


def mask(path: Path, values: Any, palette: Sequence[int] = (), mode: str | None = None) -> None:
    """A label map of vertical stripes, one for each value or color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = np.asarray(values, np.uint8)
    stripes = own[np.arange(WIDTH) * len(own) // WIDTH]
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(stripes, (HEIGHT, *stripes.shape))))
    if palette:
        image.putpalette(palette)
    (image.convert(mode) if mode else image).save(path)


def masks(
    root: Path, values: Any, splits: Sequence[str] = ("train", "val"), maps: str = "masks", **how: Any
) -> Path:
    """Images and label maps of stripes, 5 for each part."""
    for split in splits:
        for number in range(5):
            picture(root / "images" / split / f"{number}.jpg", number)
            mask(root / maps / split / f"{number}.png", values, **how)
    return root
