"""COCO: both splits, their JSONs, boxes within images, every pixel decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset

from mst_pretrain.data.files import first_of
from mst_pretrain.runtime.errors import UserError

from .. import layouts
from ..coco_faults import coco_faults, is_left_out
from .findings import Findings
from .task import Task
from .verify import whole_image

COCO_COUNTS = {"train2017": 118287, "val2017": 5000}
BOX_SLACK = 1.0  # pixels: COCO's own boxes are rounded


def prepare_coco(task: Task) -> None:
    """``train2017``, ``val2017`` and ``annotations/instances_SPLIT.json``."""
    classes: tuple[str, ...] | None = None
    for split in COCO_COUNTS:
        folder, path = task.root / split, task.root / f"annotations/instances_{split}.json"
        missing = [
            (part, archive)
            for part, archive in ((folder, f"{split}.zip"), (path, "annotations_trainval2017.zip"))
            if not part.exists()
        ]
        for part, archive in missing:
            task.findings.add("missing split", part, f"does not exist; unpack {archive}")
        if missing:
            continue
        try:
            content = layouts.read_coco(path)
            faults = coco_faults(content, not task.boxes_only)
            if not faults:
                layouts.check_categories(path, content, classes)
        except UserError as error:
            task.findings.add_error(path, error)
            continue
        for fault in faults:
            task.findings.add("entries", path, fault)
        if faults:
            continue
        classes = classes or layouts.coco_classes(path, content)
        _coco_split(task, split, path, content)
    if task.any_count and classes and classes != CocoDataset.METAINFO["classes"]:
        task.findings.notes.append(f"for the config: classes = {classes!r}")


def _coco_split(task: Task, split: str, path: Path, content: dict[str, Any]) -> None:
    """Counts, absent images, boxes, sizes, and every pixel."""
    findings, folder = task.findings, task.root / split
    names = [str(image["file_name"]) for image in content["images"]]
    findings.splits[split] = {
        "images": len(names),
        "annotations": len(content["annotations"]),
        "categories": len(content["categories"]),
    }
    findings.expect(path, len(names), task.expected(COCO_COUNTS, split), "images (COCO 2017)")
    absent = set(layouts.absent_files(folder, names))
    for name in sorted(absent):
        findings.add("absent image", folder / name, f"named by {path}")
    _check_boxes(findings, path, content)
    present = [folder / name for name in dict.fromkeys(names) if name not in absent]
    sizes, faults = task.verifier.read_all(f"{split} images", present, whole_image)
    findings.add_faults(faults)
    for image in content["images"]:
        file, wanted = folder / str(image["file_name"]), [image["width"], image["height"]]
        size = sizes.get(file)
        if size is not None and size != wanted:
            said = f"{wanted[1]}x{wanted[0]} (height x width) in {path}"
            findings.add("image size", file, f"is {size[1]}x{size[0]}, but {said}")


def _check_boxes(findings: Findings, path: Path, content: dict[str, Any]) -> None:
    """Boxes within their image and with an area; those of less than a pixel, as COCO has some, are only counted."""
    images = {image["id"]: image for image in content["images"]}
    small = 0
    flat = []
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        image = images[annotation["image_id"]]
        if width < 1 or height < 1:
            small += 1
        elif is_left_out(annotation):
            flat.append(f"annotation {annotation['id']}")
        outside = max(-x, -y, x + width - image["width"], y + height - image["height"])
        if outside > BOX_SLACK:
            size = f"{image['height']}x{image['width']} (height x width)"
            what = (
                f"annotation {annotation['id']}: box {annotation['bbox']} in {image['file_name']} of {size}"
            )
            findings.add("box outside", path, what)
    if flat:
        findings.add("no area", path, f"{len(flat)} of {len(content['annotations'])}: {first_of(flat)}")
    if small:
        findings.notes.append(f"{path}: {small} boxes are smaller than a pixel; training leaves them out")
