"""COCO: both splits, official counts, every pixel decoded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mmdet.datasets import CocoDataset

from ..coco_file import coco_classes, read_with_notes
from ..coco_rules import coco_problems, file_names
from ..used_objects import list_reasons, why_not_trained
from .findings import Task

COCO_COUNTS = {"train2017": 118287, "val2017": 5000}
ROBOFLOW = "_annotations.coco.json"

Classes = tuple[str, ...] | None


def prepare_coco(task: Task) -> None:
    """``train2017``, ``val2017`` and ``annotations/instances_SPLIT.json``, or Roboflow's ``train`` and ``valid``."""
    classes: Classes = None
    roboflow = task.any_count and (task.root / "train" / ROBOFLOW).is_file()
    for split in ("train", "valid") if roboflow else COCO_COUNTS:
        folder, path = task.root / split, task.root / f"annotations/instances_{split}.json"
        if roboflow:
            path = folder / ROBOFLOW
        missing = [
            (part, archive)
            for part, archive in ((folder, f"{split}.zip"), (path, "annotations_trainval2017.zip"))
            if not part.exists()
        ]
        for part, archive in missing:
            task.missing(part, archive)
        if not missing:
            with task.findings.keeping(path):
                classes = _coco_split(task, folder, path, classes)
    if task.any_count and classes and classes != CocoDataset.METAINFO["classes"]:
        task.findings.notes.append(f"for the config: classes = {classes!r}")


def _coco_split(task: Task, folder: Path, path: Path, classes: Classes) -> Classes:
    """Counts and problems; the classes that the next split must have."""
    findings, (content, notes) = task.findings, read_with_notes(path)
    findings.notes += [f"{path}: {note} (in memory; the file stays as it is)" for note in notes]
    findings.splits[folder.name] = {key: len(content[key]) for key in ("images", "annotations", "categories")}
    images = len(content["images"])
    findings.expect(path, images, task.expected(COCO_COUNTS, folder.name), "images (COCO 2017)")
    problems = coco_problems(path, content, folder, task.reader, classes, not task.boxes_only)
    if "entries" in {problem.kind for problem in findings.take(path, problems)}:
        return classes
    task.images.append([folder / name for name in file_names(content, folder)])
    annotations, by_id = content["annotations"], {image["id"]: image for image in content["images"]}
    reasons = Counter(filter(None, (why_not_trained(a, by_id[a["image_id"]]) for a in annotations)))
    if reasons:
        used = len(annotations) - reasons.total()
        what = f"{used} of {len(annotations)} objects are trained; left out: {list_reasons(reasons)}"
        if 0 < 2 * used < len(annotations):
            findings.add("unused", path, what)
        else:
            findings.notes.append(f"{path}: {what}")
    return classes or coco_classes(content)
