"""Checks of COCO and Cityscapes folders before work: every fault is one message with path and remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from mst_pretrain.data.files import check_image_files, check_image_folder, first_of
from mst_pretrain.runtime.errors import UserError

from .coco_faults import coco_faults, is_left_out
from .label_maps import check_pairs, id_counts, parallel, sample

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
IMAGE_TAIL = "_leftImg8bit"
LABEL_TAIL = "_gtFine_labelTrainIds.png"


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
    root: str | Path,
    ann_file: str | Path,
    img_prefix: str | Path,
    classes: Sequence[str] | None = None,
    masks: bool = False,
) -> int:
    """Check one COCO split.

    Args:
        root: Data root, which ``ann_file`` and ``img_prefix`` are relative to.
        ann_file: Instance JSON, e.g. ``annotations/instances_train2017.json``.
        img_prefix: Image folder, e.g. ``train2017``.
        classes: Names by label, a subset of the categories. mmdet numbers labels in each file's own order:
            another order, or a missing category, in the validation file would swap classes silently.
        masks: Every annotation must have a mask.

    Returns:
        The number of images.

    Raises:
        UserError: Missing folder, broken JSON, absent or truncated images, annotations that cannot be used, or none
            of the classes that mmdet would not leave out.
    """
    path, folder = Path(root, ann_file), Path(root, img_prefix)
    need_folder(Path(root), "the COCO data root")
    need_folder(folder, "the image folder of this split")
    content = read_coco(path)
    faults = coco_faults(content, masks)
    if faults:
        raise UserError(f"{path}: {faults[0]}")
    names = [str(image["file_name"]) for image in content["images"]]
    absent = absent_files(folder, names)
    if absent:
        raise UserError(
            f"{path} names {len(absent)} images of {len(names)} that are not in {folder}: {first_of(absent)}. "
            "Copy them there, or remove their entries from the JSON."
        )
    check_categories(path, content, classes)
    _check_objects(path, content, classes)
    check_image_files([folder / name for name in names])
    return len(names)


def _check_objects(path: Path, content: dict[str, Any], classes: Sequence[str] | None) -> None:
    annotations, names = content["annotations"], {c["id"]: str(c["name"]) for c in content["categories"]}
    trained = [a for a in annotations if not classes or names[a["category_id"]] in classes]
    left_out = sum(map(is_left_out, trained))
    if not any(not is_left_out(a) and not a["iscrowd"] for a in trained):
        raise UserError(
            f"{path} has no object to train on or to score: of {len(annotations)} annotations {len(trained)} are of "
            f"the classes trained, and {left_out} of these have an area of 0 or a box of less than a pixel, the "
            "others are crowds. Write each object's 'area' in pixels, or correct the classes."
        )


def absent_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that are no files below ``folder``."""
    there = parallel(lambda name: (folder / name).is_file(), names)
    return [name for name, found in zip(names, there, strict=True) if not found]


def check_categories(path: Path, content: dict[str, Any], classes: Sequence[str] | None) -> None:
    """The file has all of ``classes``, in the same order; others are left out of training, which is printed.

    Raises:
        UserError: It has not.
    """
    own, classes = coco_classes(path, content), tuple(classes or ())
    lacking = [name for name in classes if name not in own]
    if lacking:
        raise UserError(
            f"{path} has no category {first_of(lacking)}; it has {', '.join(own)}. It must have them all: correct the "
            "classes in the config, or the file."
        )
    for place, (name, wanted) in enumerate(
        zip_longest([name for name in own if name in classes], classes), 1
    ):
        if name != wanted:
            raise UserError(
                f"{path}: category {place} of those trained is '{name}' there and '{wanted}' in training. They must "
                "have the same order: correct the file, or the classes."
            )
    left_out = [name for name in own if classes and name not in classes]
    if left_out:
        print(
            f"{path}: {len(left_out)} of {len(own)} categories are not trained: {first_of(left_out)}",
            flush=True,
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
    need_folder(folder, "the images of this split")
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
    need_folder(root, "the Cityscapes data root")
    images = cityscapes_images(images_root)
    need_folder(labels_root, "the label maps of this split")
    maps = [cityscapes_label_map(path, images_root, labels_root) for path in images]
    absent = [str(path) for path, there in zip(maps, parallel(Path.is_file, maps), strict=True) if not there]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(images)} images in {images_root} have no label map: {first_of(absent)}. "
            f"If {labels_root} has polygons, make them: python tools/prepare_data.py cityscapes {root}"
        )
    return maps


def cityscapes_label_map(image: Path, images_root: Path, labels_root: Path) -> Path:
    """Where the ``labelTrainIds`` map of an image below ``images_root`` belongs below ``labels_root``."""
    name = image.stem.removesuffix(IMAGE_TAIL) + LABEL_TAIL
    return labels_root / image.parent.relative_to(images_root) / name


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
    remedy = f"If it holds labelIds, make train ids: CITYSCAPES_DATASET={root} csCreateTrainIdLabelImgs"
    check_pairs(images, maps, len(CITYSCAPES_CLASSES), remedy)
    return len(images)


def cityscapes_present_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """Names of the classes that have a pixel in the split's label maps (at most 2,000 read), by train id.

    Raises:
        UserError: As :func:`cityscapes_label_maps`, or not one labelled pixel.
    """
    counts = np.sum(parallel(id_counts, sample(cityscapes_label_maps(root, split))), axis=0)
    present = tuple(name for name, count in zip(CITYSCAPES_CLASSES, counts, strict=False) if count)
    if not present:
        raise UserError(f"{Path(root, 'gtFine', split)} has no pixel of a known class. Check the label maps.")
    return present


def need_folder(path: Path, what: str) -> None:
    """Refuse to go on without a folder.

    Raises:
        UserError: It does not exist.
    """
    if not path.is_dir():
        raise UserError(f"Folder {path} ({what}) does not exist. Check the data root or put the data there.")
