"""What a segmentation data set that mmseg has built uses: its images of how many, and the pixels of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_pretrain.data.files import first_of, list_images
from mst_pretrain.data.suffixes import pictures
from mst_pretrain.runtime.errors import UserError

from .datasets import FolderSegmentation
from .image_lists import read_image_list
from .layouts import Pairs, folder_notes
from .pair_rules import (
    IGNORED,
    IGNORED_16,
    OBJECT_255,
    LabelRule,
    Meaning,
    absent_classes,
    class_problems,
    label_pixels,
    map_values,
    object_note,
    pair_problems,
)
from .problems import Problem, stop_at_first
from .reading import Reader, sample_note
from .used_objects import parts_of

SHOWN_CLASSES = 20


def check_labels(
    dataset: Any, split: str, trains: bool, allow_unused: bool = False
) -> tuple[Meaning, list[Path]]:
    """Check every image and label map that a built data set reads, and print one line of what is used.

    Args:
        dataset: A data set of mmseg, or of MMEngine around such.
        split: For the lines.
        trains: It is trained on: a class without a pixel is a warning, and one class alone is an error.
        allow_unused: One class alone, or none, or less than half of the images, is not an error.

    Returns:
        What 255 and 0 mean in it, and the images that it uses.

    Raises:
        UserError: :func:`pair_problems` or :func:`class_problems` finds a problem, or less than half of the images
            that are there is used.
    """
    names, reader = dataset.metainfo["classes"], Reader()
    pixels: Counter[int] = Counter()
    used: Pairs = ([], [])
    rules = _pairs_by_rule(dataset, len(names))
    for rule, pairs in rules.items():
        stop_at_first(pair_problems(pairs, rule, reader, split))
        pixels += label_pixels(pairs[1], rule, reader)
        for mine, some in zip(used, pairs, strict=True):
            mine.extend(some)
    parts = parts_of(dataset)
    images, there = len(used[0]), max(len(used[0]), _images_there(parts))
    line = f"{images} of {there} images used"
    lines = [
        *_notes(parts, split, used[1]),
        f"{split}: {line}; {_shares(pixels, names)}{sample_note(used[1])}",
    ]
    absent = absent_classes(pixels, names, trains)
    lines += [f"{'warning' if trains else 'note'}: {split}: {absent}"] if absent else []
    print("\n".join(lines), flush=True)
    where = Path(parts[0].data_prefix["seg_map_path"])
    if not allow_unused:
        stop_at_first(class_problems(where, pixels, names, trains))
        if 2 * images < there:
            stop_at_first([Problem("unused", Path(parts[0].data_prefix["img_path"]), f"{split}: {line}")])
    occurs = any({IGNORED, IGNORED_16} & map_values(reader, path).keys() for path in used[1])
    is_object, reduces = (
        dataset.metainfo.get("label_map") == OBJECT_255,
        any(rule.reduce_zero for rule in rules),
    )
    return Meaning(where, occurs, is_object, reduces), used[0]


def _pairs_by_rule(dataset: Any, classes: int) -> dict[LabelRule, Pairs]:
    """Every image once, with its label map, by how mmseg reads that map."""
    while not hasattr(dataset, "get_data_info") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    groups: dict[LabelRule, dict[str, str]] = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if not info.get("seg_map_path"):
            raise UserError(
                f"{info['img_path']} has no label map. Name their folder: data_prefix.seg_map_path."
            )
        exchanged = tuple((info.get("label_map") or {}).items())
        colors = tuple(map(tuple, info.get("colors") or ()))
        rule = LabelRule(classes, exchanged, bool(info.get("reduce_zero_label")), colors)
        groups.setdefault(rule, {})[info["img_path"]] = info["seg_map_path"]
    if not groups:
        raise UserError(
            "A data set of the config has no image. Check its data_root, data_prefix and indices."
        )
    return {rule: ([*map(Path, some)], [*map(Path, some.values())]) for rule, some in groups.items()}


def _notes(parts: Sequence[Any], split: str, maps: Sequence[Path]) -> list[str]:
    """What 255 means, if not ignored, and the label maps and other files that are not used."""
    notes = []
    for part in parts:
        if part.metainfo.get("label_map") == OBJECT_255:
            notes.append(object_note(part.metainfo["classes"]))
        if isinstance(part, FolderSegmentation) and part.image_list is None:
            notes += folder_notes(part.data_prefix["img_path"], part.data_prefix["seg_map_path"], maps)
    return [f"note: {split}: {note}" for note in notes]


def _images_there(parts: Sequence[Any]) -> int:
    """Images that the lists of the data sets name, and without a list, all pictures in their folders."""
    count, folders = 0, set()
    for part in parts:
        names = read_image_list(getattr(part, "image_list", None))
        if names is not None:
            count += len(names)
        elif part.ann_file and Path(part.ann_file).is_file():
            count += len(Path(part.ann_file).read_text().splitlines())
        else:
            folders.add(part.data_prefix["img_path"])
    left_out: Counter[str] = Counter()
    return count + sum(len(list_images(folder, left_out)) for folder in folders) + pictures(left_out)


def _shares(pixels: Counter[int], names: Sequence[str]) -> str:
    """Each class's share of the pixels."""
    total = max(1, pixels.total())
    shares = [f"{name} {pixels[label] / total:.2%}" for label, name in enumerate(names)]
    shown = ", ".join(shares) if len(names) <= SHOWN_CLASSES else f"{len(names)} classes, {first_of(shares)}"
    return f"pixels: {shown}" + (f"; ignored {pixels[IGNORED] / total:.2%}" if pixels[IGNORED] else "")
