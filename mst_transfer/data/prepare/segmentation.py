"""Cityscapes, its train ids drawn where they are missing, and pairs of folders with images and label maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mst_pretrain.runtime.errors import UserError

from .. import layouts
from ..folders import folder_pairs
from ..label_maps import id_fault, size_fault
from .findings import Findings
from .task import Task
from .train_ids import convert_all, polygons_of
from .verify import whole_image, whole_label_map

CITYSCAPES_COUNTS = {"train": 2975, "val": 500, "test": 1525}


def prepare_cityscapes(task: Task) -> None:
    """``leftImg8bit/SPLIT/CITY`` and ``gtFine/SPLIT/CITY``; train ids are drawn where there are only polygons."""
    images: dict[str, list[Path]] = {}
    for split in CITYSCAPES_COUNTS:
        folder = task.root / "leftImg8bit" / split
        if not folder.is_dir():
            if split != "test" or not task.any_count:
                task.findings.add(
                    "missing split", folder, "no such folder; unpack leftImg8bit_trainvaltest.zip"
                )
            continue
        try:
            images[split] = layouts.cityscapes_images(folder)
        except UserError as error:
            task.findings.add_error(folder, error)
            continue
        task.findings.splits[split] = {"images": len(images[split])}
        task.findings.expect(
            folder, len(images[split]), task.expected(CITYSCAPES_COUNTS, split), "images (Cityscapes)"
        )
    labels = _make_train_ids(task, images)
    for split, paths in images.items():
        folder = task.root / "leftImg8bit" / split
        maps = [layouts.cityscapes_label_map(path, folder, labels / split) for path in paths]
        if split == "test" and not any(map(Path.is_file, maps)):
            task.findings.notes.append("test has no label maps; its images are checked without")
            _, faults = task.verifier.read_all("test images", paths, whole_image)
            task.findings.add_faults(faults)
        else:
            sizes = _check_pairs(task, split, paths, maps, len(layouts.CITYSCAPES_CLASSES))
            official = [
                layouts.cityscapes_label_map(path, folder, task.root / "gtFine" / split) for path in paths
            ]
            _check_label_ids(task, split, dict(zip(official, paths, strict=True)), sizes)


def _make_train_ids(task: Task, images: dict[str, list[Path]]) -> Path:
    """Draw the missing maps.

    Returns:
        The folder of all label maps: ``gtFine`` of the root; or, when maps are missing there and another folder was
        given, ``gtFine`` of that one, which then is a data root of its own: its images are a link.
    """
    source, wanted = task.root / "gtFine", []
    for split, paths in images.items():
        folder = task.root / "leftImg8bit" / split
        wanted += [layouts.cityscapes_label_map(path, folder, source / split) for path in paths]
    polygons = [polygons_of(path, source, source) for path in wanted]
    there = list(task.verifier.each(Path.is_file, [*wanted, *polygons]))
    drawable, present = there[len(wanted) :], there[: len(wanted)]
    if not any(can and not has for can, has in zip(drawable, present, strict=True)):
        return source
    target, apart = task.out / "gtFine", os.path.abspath(task.out) != os.path.abspath(task.root)
    jobs = []
    for path, origin, can, has in zip(wanted, polygons, drawable, present, strict=True):
        label_map = target / path.relative_to(source)
        if label_map.is_file():
            continue
        if can:
            jobs.append((origin, label_map))
        elif has:
            _link(label_map, path)
    for origin, _, why in convert_all(task.verifier, jobs):
        if why:
            task.findings.add("polygons", origin, why)
    if jobs:
        task.findings.notes.append(f"{len(jobs)} labelTrainIds maps drawn from polygons into {target}")
    if apart:
        _link(task.out / "leftImg8bit", task.root / "leftImg8bit")
        task.findings.notes.append(f"the label maps are not in {task.root}: train with data_root={task.out}")
    return target


def _link(path: Path, target: Path) -> None:
    """A symbolic link, unless something is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink() and not path.exists():
        path.symlink_to(os.path.abspath(target))


def prepare_pair(task: Task) -> None:
    """``images/train``, ``images/val`` and their label maps below ``labels``."""
    for split in ("train", "val"):
        folder, labels = task.root / "images" / split, task.root / "labels" / split
        missing = [part for part in (folder, labels) if not part.is_dir()]
        for part in missing:
            task.findings.add("missing split", part, "no such folder")
        if missing:
            continue
        try:
            images, maps = folder_pairs(folder, labels)
        except UserError as error:
            task.findings.add_error(folder, error)
            continue
        task.findings.splits[split] = {"images": len(images)}
        _check_pairs(task, split, images, maps, task.classes)


def _check_label_ids(
    task: Task, split: str, images: dict[Path, Path], sizes: dict[Path, tuple[int, int]]
) -> None:
    """The official score reads ``labelIds``: where they are, they are whole and of the image's size.

    Args:
        task: The task.
        split: For progress lines.
        images: The image of each ``labelTrainIds`` path.
        sizes: (width, height) of whole images.
    """
    official = {
        label.with_name(label.name.replace("TrainIds", "Ids")): path for label, path in images.items()
    }
    there = task.verifier.each(Path.is_file, official)
    present = [label for label, found in zip(official, there, strict=True) if found]
    read, faults = task.verifier.read_all(f"{split} labelIds", present, whole_label_map)
    task.findings.add_faults(faults)
    for label, (width, height, *_) in read.items():
        image = official[label]
        if image in sizes:
            fault = size_fault(image, sizes[image], (width, height))
            _add(task.findings, "label map size", label, fault)


def _check_pairs(
    task: Task, split: str, images: Sequence[Path], maps: Sequence[Path], classes: int
) -> dict[Path, tuple[int, int]]:
    """Every image and map is whole; maps are there, of the image's size and without unknown ids.

    Returns:
        (width, height) of the whole images.
    """
    findings = task.findings
    there = list(task.verifier.each(Path.is_file, maps))
    for label, found in zip(maps, there, strict=True):
        if not found:
            findings.add("no label map", label, "does not exist")
    facts, faults = task.verifier.read_all(f"{split} images", images, whole_image)
    findings.add_faults(faults)
    sizes = {path: (width, height) for path, (width, height, *_) in facts.items()}
    present = [label for label, found in zip(maps, there, strict=True) if found]
    read, faults = task.verifier.read_all(f"{split} label maps", present, whole_label_map)
    findings.add_faults(faults)
    seen: set[int] = set()
    for image, label in zip(images, maps, strict=True):
        if label not in read:
            continue
        width, height, *ids = read[label]
        seen.update(ids)
        if image in sizes:
            _add(findings, "label map size", label, size_fault(image, sizes[image], (width, height)))
        _add(findings, "unknown id", label, id_fault(ids, classes))
    findings.splits[split] |= {"label maps": len(read), "ids": str(sorted(seen))}
    return sizes


def _add(findings: Findings, kind: str, path: Path, fault: str) -> None:
    if fault:
        findings.add(kind, path, fault)
