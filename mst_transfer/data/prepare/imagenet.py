"""ImageNet: class folders or tar shards, official counts, every pixel decoded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mst_pretrain.data.files import image_names
from mst_pretrain.data.labels import class_names
from mst_pretrain.data.shards import ShardSource
from mst_pretrain.data.suffixes import describe_left_out
from mst_pretrain.runtime.errors import UserError

from ..reading import whole_shard
from .findings import Task

IMAGENET_COUNTS = {"train": 1281167, "val": 50000}
IMAGENET_CLASSES = 1000


def prepare_imagenet(task: Task) -> None:
    """``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE``, or shards ``train-*.tar`` and ``val-*.tar``."""
    names: dict[str, list[str]] = {}
    for split in IMAGENET_COUNTS:
        folder, shards = task.root / split, sorted(task.root.glob(f"{split}-*.tar"))
        if folder.is_dir():
            count, names[split] = _class_folders(task, split, folder)
        elif shards:
            folder = task.root / f"{split}-*.tar"
            count, names[split] = _shards(task, split, shards)
        else:
            what = f"no such folder; unpack ILSVRC2012_img_{split}.tar into it, one folder a class"
            task.findings.add("missing split", folder, what)
            continue
        task.findings.splits[split] = {"images": count, "classes": len(names[split])}
        task.findings.expect(folder, count, task.expected(IMAGENET_COUNTS, split), "images (ImageNet-1k)")
        expected = None if task.any_count else IMAGENET_CLASSES
        task.findings.expect(folder, len(names[split]), expected, "classes (ImageNet-1k)")
    odd = sorted(set(names.get("train", [])) ^ set(names.get("val", []))) if len(names) == 2 else []
    if odd:
        what = f"{len(odd)} classes are in one of train and val only: {', '.join(odd[:3])}"
        task.findings.add("layout", task.root, f"{what}. Give both the same class folders.")


def _class_folders(task: Task, split: str, folder: Path) -> tuple[int, list[str]]:
    images, left_out, classes = [], Counter[str](), class_names(folder)
    if not classes:
        what = f"has no class folders. Sort the images into {folder}/CLASS/IMAGE."
        task.findings.add("layout", folder, what)
    for name in classes:
        with task.findings.keeping(folder / name):
            images += [folder / name / image for image in image_names(folder / name, left_out)]
    if others := describe_left_out(left_out):
        task.findings.notes.append(f"{folder}: left out: {others}")
    task.findings.take(folder, task.reader.images(f"{split} images", images))
    return len(images), classes


def _shards(task: Task, split: str, shards: list[Path]) -> tuple[int, list[str]]:
    problems = task.findings.take(task.root, task.reader.look_at(f"{split} shards", shards, whole_shard))
    try:
        source = ShardSource(shards, labelled=True)
    except UserError as error:  # a damaged shard is among the problems already
        if not problems:
            task.findings.add("layout", task.root, str(error))
        return sum(task.reader.facts.get(path, [0])[0] for path in shards), []
    return len(source), source.classes
