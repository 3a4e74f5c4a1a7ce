"""The rules of images and their label maps: one channel of 8-bit ids, the image's size, no id beyond the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mst_pretrain.data.files import BLOCK, in_threads
from mst_pretrain.runtime.errors import UserError

from .layouts import CITYSCAPES_CLASSES, Pairs, cityscapes_pairs, folder_pairs
from .problems import Problem, stop_at_first
from .reading import Reader, need_folder, sample_note

IGNORED = 255


def check_cityscapes(root: str | Path, split: str) -> None:
    """Check one Cityscapes split before a training or a test.

    Raises:
        UserError: A folder or an image is missing, or :func:`pair_problems` finds a problem.
    """
    pairs = _cityscapes(Path(root), split)
    stop_at_first(pair_problems(pairs, len(CITYSCAPES_CLASSES), Reader(), split))


def check_folder_pair(images_root: str | Path, maps_root: str | Path, classes: int) -> None:
    """Check images and label maps in two folders before a training or a test.

    Raises:
        UserError: As :func:`folder_pairs`, or :func:`pair_problems` finds a problem.
    """
    pairs = folder_pairs(images_root, maps_root)
    stop_at_first(pair_problems(pairs, classes, Reader(), Path(images_root).name))


def pair_problems(pairs: Pairs, classes: int, reader: Reader, split: str) -> Iterator[Problem]:
    """Problems of images and their label maps: maps that are not there first, then those of the files.

    Args:
        pairs: Images, and the map of each.
        classes: Their number; ids are 0..classes-1 or 255.
        reader: Looks at the files: a thorough one at the contents of all maps, another at those of at most 2,000,
            which a log line says.
        split: For progress lines.
    """
    images, maps = pairs
    absent = set()
    for problem in absent_maps(pairs):
        absent.add(problem.path)
        yield problem
    yield from reader.images(f"{split} images", images, sizes=True)
    present = [path for path in maps if path not in absent]
    yield from reader.label_maps(f"{split} label maps", present)
    yield from size_problems(images, maps, reader)
    note = "" if reader.record else sample_note(present)
    for label in present:
        ids = reader.facts.get(label, [])[2:]
        unknown = [index for index in ids if index >= classes and index != IGNORED]
        if unknown:
            known = f"ids are 0..{classes - 1} and {IGNORED} (ignored)"
            yield Problem(
                "unknown id", label, f"has the unknown id {unknown[0]} (all: {unknown}); {known}{note}"
            )


def absent_maps(pairs: Pairs) -> Iterator[Problem]:
    """Every image has its label map."""
    there = in_threads(Path.is_file, pairs[1], block=BLOCK)
    for image, label, found in zip(*pairs, there, strict=True):
        if not found:
            yield Problem("no label map", label, f"does not exist, the label map of {image}")


def size_problems(images: Sequence[Path], maps: Sequence[Path], reader: Reader) -> Iterator[Problem]:
    """Maps have the size of their image, where both were read."""
    for image, label in zip(images, maps, strict=True):
        wanted, found = reader.facts.get(image), reader.facts.get(label, [])[:2]
        if wanted and found and wanted != found:
            size = f"is {found[1]}x{found[0]} (height x width), its image {image} is {wanted[1]}x{wanted[0]}"
            yield Problem("label map size", label, size)


def cityscapes_label_maps(root: str | Path, split: str) -> list[Path]:
    """The ``labelTrainIds`` map of each image of a split, in the images' order.

    Raises:
        UserError: The split has no images, or an image has no label map.
    """
    pairs = _cityscapes(Path(root), split)
    stop_at_first(absent_maps(pairs))
    return pairs[1]


def cityscapes_present_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """Names of the classes that have a pixel in the split's label maps (at most 2,000 read), by train id.

    Raises:
        UserError: As :func:`cityscapes_label_maps`, a map cannot be used, or there is not one labelled pixel.
    """
    reader = Reader()
    stop_at_first(reader.label_maps(f"{split} label maps", cityscapes_label_maps(root, split)))
    seen = {index for facts in reader.facts.values() for index in facts[2:]}
    present = tuple(name for index, name in enumerate(CITYSCAPES_CLASSES) if index in seen)
    if not present:
        raise UserError(f"{Path(root, 'gtFine', split)} has no pixel of a known class. Check the label maps.")
    return present


def _cityscapes(root: Path, split: str) -> Pairs:
    need_folder(root, "the Cityscapes data root")
    return cityscapes_pairs(root / "leftImg8bit" / split, root / "gtFine" / split)
