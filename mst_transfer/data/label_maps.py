"""Label maps of segmentation: one channel of 8-bit ids, the size of their image, no id beyond the classes."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from mst_pretrain.data.decode import upright_size
from mst_pretrain.data.files import check_image_files
from mst_pretrain.runtime.errors import UserError

IGNORED = 255
MAX_READ_MAPS = 2000  # beyond this many, the contents of label maps are checked on a seeded sample

Size = tuple[int, int]  # width, height, as Pillow has it
T = TypeVar("T")
R = TypeVar("R")


def check_pairs(images: Sequence[Path], maps: Sequence[Path], classes: int, remedy: str) -> None:
    """Images and maps are whole, sizes equal, ids 0..classes-1 or 255.

    Args:
        images: Images, in the order of ``maps``.
        maps: The label map of each.
        classes: Their number.
        remedy: What mends an unknown id, a sentence.

    Raises:
        UserError: Any of these does not hold.
    """
    check_image_files([*images, *maps])
    sizes = zip(parallel(upright_size, images), parallel(map_size, maps), strict=True)
    for image, label, pair in zip(images, maps, sizes, strict=True):
        fault = size_fault(image, *pair)
        if fault:
            raise UserError(
                f"Label map {label} {fault}. Resize the map with nearest neighbour, or replace it."
            )
    chosen = sample(maps)
    for path, counts in zip(chosen, parallel(id_counts, chosen), strict=True):
        fault = id_fault([int(index) for index in np.flatnonzero(counts)], classes)
        if fault:
            raise UserError(f"Label map {path} {fault}{_sample_note(maps)}. {remedy}")


def size_fault(image: Path, wanted: Size, found: Size) -> str:
    """What is wrong with the size of the map of an image of size ``wanted``, or an empty string."""
    if tuple(wanted) == tuple(found):
        return ""
    return f"is {found[1]}x{found[0]} (height x width), its image {image} is {wanted[1]}x{wanted[0]}"


def id_fault(ids: Sequence[int], classes: int) -> str:
    """What is wrong with the ids of a map, or an empty string."""
    unknown = [index for index in ids if index >= classes and index != IGNORED]
    if not unknown:
        return ""
    known = f"ids are 0..{classes - 1} and {IGNORED} (ignored)"
    return f"has the unknown id {unknown[0]} (all: {unknown}); {known}"


def map_size(path: Path) -> Size:
    """(width, height) of a map from the header; as stored, for training does not turn maps."""
    with Image.open(path) as image:
        return image.size


def id_counts(path: Path) -> np.ndarray:
    """Pixels per id, shape (256,).

    Raises:
        UserError: The file cannot be decoded, or is not one channel of 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise UserError(
                    f"Label map {path} is of mode {image.mode}; one channel of 8-bit ids is expected. "
                    "Use maps of class ids (Cityscapes: labelTrainIds), not the colour maps."
                )
            return np.asarray(image.histogram()[:256])
    except (OSError, SyntaxError) as error:
        raise UserError(f"Label map {path} cannot be decoded ({error}). Copy it again.") from error


def sample(maps: Sequence[Path]) -> Sequence[Path]:
    """The maps whose contents are read: all, or 2,000 of them, the same at every call."""
    if len(maps) <= MAX_READ_MAPS:
        return maps
    logging.getLogger(__name__).info("%s", f"Label maps{_sample_note(maps)}")
    return sorted(random.Random(0).sample(maps, MAX_READ_MAPS))


def _sample_note(maps: Sequence[Path]) -> str:
    many = len(maps) > MAX_READ_MAPS
    return f" (contents checked on a sample of {MAX_READ_MAPS} of {len(maps)} maps)" if many else ""


def parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of each item, in order, in threads that wait for a disk or a network file system."""
    with ThreadPoolExecutor(max_workers=min(16, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(function, items))
