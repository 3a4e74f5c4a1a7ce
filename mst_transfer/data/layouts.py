"""Checks of COCO and Cityscapes folders before work: every fault is one message with path and remedy."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mst_pretrain.data.files import SHOWN, check_image_files, check_image_folder
from mst_pretrain.errors import UserError

__all__ = [
    "check_cityscapes",
    "check_coco",
    "check_image_folder",
    "cityscapes_images",
    "cityscapes_label_maps",
    "cityscapes_present_classes",
    "coco_classes",
    "read_coco",
]

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
IGNORED = 255
IMAGE_TAIL = "_leftImg8bit"
LABEL_TAIL = "_gtFine_labelTrainIds.png"
COCO_FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
}
MAX_READ_MAPS = 2000  # beyond this many, the contents of label maps are checked on a seeded sample

T = TypeVar("T")
R = TypeVar("R")


def read_coco(ann_file: str | Path) -> dict[str, Any]:
    """Read a COCO instance JSON with its three lists: images, annotations, categories, none of them empty.

    Raises:
        UserError: The file is missing, is not JSON, or lacks one of the lists.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise UserError(f"COCO annotation file {path} does not exist. Check the path and the data root.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}). Copy or export it again.") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
            raise UserError(f"{path} has no entries under '{key}'. Export it as COCO instance annotations.")
    return content


def check_coco(
    root: str | Path, ann_file: str | Path, img_prefix: str | Path, classes: Sequence[str] | None = None
) -> int:
    """Check one COCO split.

    Args:
        root: Data root, which ``ann_file`` and ``img_prefix`` are relative to.
        ann_file: Instance JSON, e.g. ``annotations/instances_train2017.json``.
        img_prefix: Image folder, e.g. ``train2017``.
        classes: Names by label, a subset of the categories. mmdet numbers labels in each file's own order:
            another order, or a missing category, in the validation file would swap classes silently.

    Returns:
        The number of images.

    Raises:
        UserError: Missing folder, broken JSON, absent or truncated images, annotations that point nowhere.
    """
    path, folder = Path(root, ann_file), Path(root, img_prefix)
    _need_folder(Path(root), "the COCO data root")
    _need_folder(folder, "the image folder of this split")
    content = read_coco(path)
    _check_annotations(path, content)
    names = [str(image["file_name"]) for image in content["images"]]
    absent = [
        name
        for name, there in zip(names, _parallel(lambda name: (folder / name).is_file(), names), strict=True)
        if not there
    ]
    if absent:
        raise UserError(
            f"{path} names {len(absent)} images of {len(names)} that are not in {folder}: {_first(absent)}. "
            "Copy them there, or remove their entries from the JSON."
        )
    own = coco_classes(path, content)
    for place, (name, wanted) in enumerate(
        zip_longest([name for name in own if name in (classes or ())], classes or ()), 1
    ):
        if name != wanted:
            raise UserError(
                f"{path}: category {place} of those trained is '{name}' there and '{wanted}' in training. It must have "
                "them all, in the same order: correct the file, or the classes."
            )
    check_image_files([folder / name for name in names])
    return len(names)


def _check_annotations(path: Path, content: dict[str, Any]) -> None:
    """Every entry has its fields; every annotation has a box, a known image and a known category."""
    for key, fields in COCO_FIELDS.items():
        for entry in content[key]:
            missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if missing:
                raise UserError(
                    f"{path}: an entry of '{key}' lacks {', '.join(missing)}. It needs {', '.join(fields)}: "
                    "export it as COCO instance annotations."
                )
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    named = [(a["id"], a["image_id"], a["category_id"], a["bbox"]) for a in content["annotations"]]
    stray = [
        f"annotation {a} -> category_id {category}"
        for a, _, category, _ in named
        if category not in categories
    ]
    lost = [f"annotation {a} -> image_id {image}" for a, image, _, _ in named if image not in images]
    bent = [f"annotation {a}" for a, _, _, box in named if not isinstance(box, list) or len(box) != 4]
    if stray:
        raise UserError(
            f"{path}: {len(stray)} annotations have a category that its categories lack: {_first(stray)}. "
            "Add the category or correct the ids."
        )
    if lost:
        raise UserError(
            f"{path}: {len(lost)} annotations belong to images that are not in its images: {_first(lost)}. "
            "Add the images or remove these annotations."
        )
    if bent:
        raise UserError(
            f"{path}: {len(bent)} boxes are not [x, y, width, height]: {_first(bent)}. Correct them."
        )


def coco_classes(ann_file: str | Path, content: dict[str, Any] | None = None) -> tuple[str, ...]:
    """Category names in the file's order, which is the order of mmdet's labels.

    Raises:
        UserError: As :func:`read_coco`.
    """
    categories = (content or read_coco(ann_file))["categories"]
    return tuple(str(category["name"]) for category in categories)


def cityscapes_images(folder: str | Path) -> list[Path]:
    """All ``*_leftImg8bit.png|.jpg|.jpeg`` below ``folder``, sorted, of one suffix.

    Raises:
        UserError: Missing folder, no image, or several suffixes.
    """
    folder = Path(folder)
    _need_folder(folder, "the images of this split")
    paths = sorted(p for suffix in (".png", ".jpg", ".jpeg") for p in folder.rglob(f"*{IMAGE_TAIL}{suffix}"))
    if not paths:
        raise UserError(
            f"{folder} holds no image CITY/NAME{IMAGE_TAIL}.png (or .jpg). Unpack leftImg8bit there."
        )
    suffixes = sorted({path.suffix for path in paths})
    if len(suffixes) > 1:
        raise UserError(f"{folder} mixes images of suffixes {' and '.join(suffixes)}. Keep one format.")
    return paths


def cityscapes_label_maps(root: str | Path, split: str) -> list[Path]:
    """The ``labelTrainIds`` map of each image of a split, in the images' order.

    Raises:
        UserError: No images, or images without label map.
    """
    root = Path(root)
    images_root, labels_root = root / "leftImg8bit" / split, root / "gtFine" / split
    _need_folder(root, "the Cityscapes data root")
    images = cityscapes_images(images_root)
    _need_folder(labels_root, "the label maps of this split")
    maps = [
        labels_root / path.parent.relative_to(images_root) / (path.stem.removesuffix(IMAGE_TAIL) + LABEL_TAIL)
        for path in images
    ]
    absent = [str(path) for path, there in zip(maps, _parallel(Path.is_file, maps), strict=True) if not there]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(images)} images in {images_root} have no label map: {_first(absent)}. "
            f"If {labels_root} has polygons, make them: CITYSCAPES_DATASET={root} csCreateTrainIdLabelImgs"
        )
    return maps


def check_cityscapes(root: str | Path, split: str) -> int:
    """Check one Cityscapes split: images whole, a label map of the same size for each, ids 0..18 or 255.

    Contents of more than 2,000 label maps are checked on a seeded sample; a log line says so.

    Returns:
        The number of images.

    Raises:
        UserError: Any of these does not hold.
    """
    maps = cityscapes_label_maps(root, split)
    images = cityscapes_images(Path(root, "leftImg8bit", split))
    check_image_files([*images, *maps])
    sizes = _parallel(_image_size, [*images, *maps])
    for image, label, image_size, map_size in zip(
        images, maps, sizes[: len(images)], sizes[len(images) :], strict=True
    ):
        if image_size != map_size:
            raise UserError(
                f"Label map {label} is {map_size[1]}x{map_size[0]} (height x width), its image {image} is "
                f"{image_size[1]}x{image_size[0]}. Resize the map with nearest neighbour, or replace it."
            )
    sample = _sample(maps)
    for path, counts in zip(sample, _parallel(_id_counts, sample), strict=True):
        unknown = [int(i) for i in np.flatnonzero(counts) if i >= len(CITYSCAPES_CLASSES) and i != IGNORED]
        if unknown:
            raise UserError(
                f"Label map {path} has the unknown id {unknown[0]} (all: {unknown}); train ids are 0..18 and "
                f"255 (ignored){_sample_note(maps)}. If it holds labelIds, make train ids: "
                f"CITYSCAPES_DATASET={root} csCreateTrainIdLabelImgs"
            )
    return len(images)


def cityscapes_present_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """Names of the classes that have a pixel in the split's label maps (at most 2,000 read), by train id.

    Raises:
        UserError: As :func:`cityscapes_label_maps`, or not one labelled pixel.
    """
    counts = np.sum(_parallel(_id_counts, _sample(cityscapes_label_maps(root, split))), axis=0)
    present = tuple(name for name, count in zip(CITYSCAPES_CLASSES, counts, strict=False) if count)
    if not present:
        raise UserError(f"{Path(root, 'gtFine', split)} has no pixel of a known class. Check the label maps.")
    return present


def _sample(maps: list[Path]) -> list[Path]:
    """The maps whose contents are read: all, or 2,000 of them, the same at every call."""
    if len(maps) <= MAX_READ_MAPS:
        return maps
    logging.getLogger(__name__).info("%s", f"Label maps{_sample_note(maps)}")
    return sorted(random.Random(0).sample(maps, MAX_READ_MAPS))


def _sample_note(maps: Sequence[Path]) -> str:
    many = len(maps) > MAX_READ_MAPS
    return f" (contents checked on a sample of {MAX_READ_MAPS} of {len(maps)} maps)" if many else ""


def _image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header."""
    with Image.open(path) as image:
        return image.size


def _id_counts(path: Path) -> np.ndarray:
    """Pixels per id, shape (256,)."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise UserError(
                    f"Label map {path} is of mode {image.mode}; one channel of 8-bit ids is expected. "
                    "Use the labelTrainIds maps, not the colour maps."
                )
            return np.asarray(image.histogram()[:256])
    except (OSError, SyntaxError) as error:
        raise UserError(f"Label map {path} cannot be decoded ({error}). Copy it again.") from error


def _need_folder(path: Path, what: str) -> None:
    if not path.is_dir():
        raise UserError(f"Folder {path} ({what}) does not exist. Check the data root or put the data there.")


def _first(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")


def _parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(max_workers=min(16, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(function, items))
