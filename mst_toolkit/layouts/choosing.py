"""Which layout a folder has: every layout that fits is a candidate, and exactly one may remain."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import coco_layouts, mask_layouts
from .found import DETECTION, PHOTOS, SEGMENTATION, TASKS, Found, layout_error
from .photo_layouts import is_photo_spec, photos
from .refused import refused_layout

KNOWN = "COCO, Roboflow, CVAT, Label Studio, images with masks, VOC, Cityscapes, or a folder of photos"


@dataclass(frozen=True)
class Candidate:
    """A layout that fits.

    Attributes:
        task: ``detection`` or ``segmentation``.
        layout: Its name.
        evidence: The files that speak for it.
        build: Reads it.
    """

    task: str
    layout: str
    evidence: str
    build: Callable[[], Found]


def recognise(
    data: str | Path | None,
    task: str | None = None,
    *,
    train_json: str | Path | None = None,
    train_images: str | Path | None = None,
    val_json: str | Path | None = None,
    val_images: str | Path | None = None,
    boxes_only: bool = False,
) -> Found:
    """Recognise the layout of some data, and read its classes and counts.

    Args:
        data: A folder, a COCO JSON, a list of photos, tar shards or ``hf:NAME``. None with ``train_json``.
        task: ``photos``, ``detection`` or ``segmentation``; None: the one that fits.
        train_json: COCO JSON of the training images. With it nothing else is looked for.
        train_images: Their folder; None: found by the names of the images.
        val_json: COCO JSON of the validation images; None: split from the training images.
        val_images: Their folder; None: found as that of the training images.
        boxes_only: Polygons are not used, even where there are some.

    Raises:
        UserError: Nothing fits, or two layouts do; the data cannot be used as they are. Each has a code D..
        ValueError: An unknown task.
    """
    if task not in (None, *TASKS):
        raise ValueError(f"task must be one of {TASKS} or None, got {task!r}")
    if train_json is not None:
        return coco_layouts.explicit(train_json, train_images, val_json, val_images, boxes_only)
    if train_images is not None or val_json is not None or val_images is not None or data is None:
        raise layout_error(
            "D16",
            "Annotations are named file by file, but the COCO JSON of the training images is missing.",
            "Add it: --train-json FILE --train-images FOLDER [--val-json FILE --val-images FOLDER].",
        )
    if task == PHOTOS or (task is None and is_photo_spec(str(data))):
        return photos(data)
    root = Path(data)
    if not root.exists():
        raise layout_error("D01", f"{root} does not exist.", _look_at(root.parent))
    if root.is_file():
        return coco_layouts.one_json(root, boxes_only)
    return _chosen(root, task, _candidates(root, boxes_only))


def _candidates(root: Path, boxes_only: bool) -> list[Candidate]:
    found = [
        Candidate(DETECTION, layout, evidence, build)
        for layout, evidence, build in coco_layouts.candidates(root, boxes_only)
    ]
    return found + [
        Candidate(SEGMENTATION, layout, evidence, build)
        for layout, evidence, build in mask_layouts.candidates(root)
    ]


def _chosen(root: Path, task: str | None, candidates: list[Candidate]) -> Found:
    fitting = [candidate for candidate in candidates if task in (None, candidate.task)]
    if len(fitting) > 1:
        both = "; ".join(f"{one.layout} ({one.evidence})" for one in fitting)
        tasks = {one.task for one in fitting}
        choose = (
            "Say which task: --task detection or --task segmentation" if len(tasks) > 1 else "Name the files"
        )
        raise layout_error(
            "D02",
            f"{root} fits {len(fitting)} layouts: {both}.",
            f"{choose}, or give a folder that holds only one of them"
            + (" (COCO files: --train-json FILE --train-images FOLDER)." if DETECTION in tasks else "."),
        )
    if fitting:
        return fitting[0].build()
    refused_layout(root)
    if candidates:
        other = candidates[0]
        raise layout_error(
            "D11",
            f"{root} holds labels for {other.task} ({other.layout}: {other.evidence}), not for {task}.",
            f"Use them: mst finetune {other.task} {root}; or give the data for {task}.",
        )
    if task is None:
        return photos(root)
    wanted = "a COCO JSON" if task == DETECTION else "a folder of label maps (PNG)"
    raise layout_error(
        "D01",
        f"No labels for {task} were found in {root}: {wanted} is needed beside the images. {_look_at(root)}",
        f"The layouts that are recognised are {KNOWN}; docs/data_layouts.md shows each.",
    )


def _look_at(folder: Path) -> str:
    """What lies in a folder, for a message."""
    if not folder.is_dir():
        return f"{folder} does not exist either. Check the path."
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    shown = ", ".join(f"{name}/" if (folder / name).is_dir() else name for name in names[:6])
    return f"{folder} holds {shown or 'nothing'}{', ...' if len(names) > 6 else ''}."
