"""Cityscapes, its train ids drawn where they are missing, and pairs of folders with images and label maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mst_pretrain.data.files import BLOCK, in_threads

from .. import layouts
from ..missing import there_instead
from ..pair_rules import (
    IGNORED,
    LabelRule,
    Meaning,
    absent_classes,
    class_problems,
    label_pixels,
    map_values,
    need_one_meaning,
    need_two_classes,
    object_note,
    pair_problems,
    rule_of_folders,
    size_problems,
)
from .findings import Task
from .train_ids import convert_all, polygons_of

CITYSCAPES_COUNTS = {"train": 2975, "val": 500, "test": 1525}


def prepare_cityscapes(task: Task) -> None:
    """``leftImg8bit/SPLIT/CITY`` and ``gtFine/SPLIT/CITY``; train ids are drawn where there are only polygons."""
    images: dict[str, list[Path]] = {}
    for split in CITYSCAPES_COUNTS:
        folder = task.root / "leftImg8bit" / split
        if not folder.is_dir():
            if split != "test" or not task.any_count:
                what = f"does not exist{there_instead(folder)}; unpack leftImg8bit_trainvaltest.zip"
                task.findings.add("missing split", folder, what)
            continue
        with task.findings.keeping(folder):
            images[split] = layouts.cityscapes_images(folder)
    labels, names = _make_train_ids(task, images), layouts.CITYSCAPES_CLASSES
    for split, paths in images.items():
        folder, expected = task.root / "leftImg8bit" / split, task.expected(CITYSCAPES_COUNTS, split)
        task.findings.splits[split] = {"images": len(paths)}
        task.findings.expect(folder, len(paths), expected, "images (Cityscapes)")
        maps = [layouts.cityscapes_label_map(path, folder, labels / split) for path in paths]
        if split == "test" and not any(map(Path.is_file, maps)):
            task.findings.notes.append("test has no label maps; its images are checked without")
            task.findings.take(folder, task.reader.images("test images", paths))
        else:
            _check_pairs(task, split, (paths, maps), LabelRule(len(names)), names)
            source = task.root / "gtFine"
            _check_label_ids(task, split, paths, [source / path.relative_to(labels) for path in maps])


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
    polygons = [polygons_of(path) for path in wanted]
    there = list(in_threads(Path.is_file, [*wanted, *polygons], task.reader.workers, BLOCK))
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
    task.findings.problems.extend(convert_all(jobs, task.reader.workers))
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
    need_two_classes("--classes 1", ["object"] * task.classes)
    meanings = []
    for split in ("train", "val"):
        folder, labels = task.root / "images" / split, task.root / "labels" / split
        missing = [part for part in (folder, labels) if not part.is_dir()]
        for part in missing:
            task.missing(part)
        if not missing:
            with task.findings.keeping(folder):
                meanings.append(_pair_split(task, split, folder, labels))
    if len(meanings) == 2:
        with task.findings.keeping(task.root / "labels"):
            need_one_meaning(*meanings)


def _pair_split(task: Task, split: str, folder: Path, labels: Path) -> Meaning:
    """Check one split; what 255 means in it."""
    names = [f"id {index}" for index in range(task.classes)]
    pairs = layouts.folder_pairs(folder, labels)
    rule = rule_of_folders(pairs[1], task.classes)
    task.findings.splits[split] = {"images": len(pairs[0])}
    _check_pairs(task, split, pairs, rule, names)
    notes = [object_note(names)] if rule.object_is_255 else []
    notes += layouts.folder_notes(folder, labels, pairs[1])
    task.findings.notes += [f"{split}: {note}" for note in notes]
    occurs = any(IGNORED in map_values(task.reader, path) for path in pairs[1])
    return Meaning(labels, occurs, rule.object_is_255)


def _check_label_ids(task: Task, split: str, images: list[Path], maps: list[Path]) -> None:
    """The official score reads ``labelIds``: where they lie beside ``labelTrainIds``, they fit their image."""
    official = [path.with_name(path.name.replace("TrainIds", "Ids")) for path in maps]
    there = in_threads(Path.is_file, official, task.reader.workers, BLOCK)
    present = [label for label, found in zip(official, there, strict=True) if found]
    task.findings.take(task.root, task.reader.label_maps(f"{split} labelIds", present))
    task.findings.take(task.root, size_problems(images, official, task.reader))


def _check_pairs(task: Task, split: str, pairs: layouts.Pairs, rule: LabelRule, names: Sequence[str]) -> None:
    """Problems of images, maps and classes; the number of maps read and the ids in them."""
    findings = task.findings
    task.images.append(pairs[0])
    findings.take(task.root, pair_problems(pairs, rule, task.reader, split))
    read = [path for path in pairs[1] if path in task.reader.facts]
    seen = {value for path in read for value in map_values(task.reader, path)}
    findings.splits[split] |= {"label maps": len(read), "ids": str(sorted(seen))}
    pixels = label_pixels(read, rule, task.reader)
    if read and split != "test":  # Cityscapes' test maps are ignored throughout
        findings.take(task.root, class_problems(task.root, pixels, names, split == "train"))
        absent = absent_classes(pixels, names, split == "train")
        findings.notes.extend([f"{split}: {absent}"] if absent else [])
