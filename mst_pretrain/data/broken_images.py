"""An image that breaks in the middle of a run is replaced by another one, by a rule that a resumed run repeats."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from ..runtime.errors import UnusableImage, UserError

T = TypeVar("T")
READS = 3  # of one image before it is replaced
PAUSES = (0.05, 0.2)  # seconds before the second and the third, where the file system refused
IN_A_ROW = 50  # unusable images: then a disk is gone rather than a file
OF_THE_SYSTEM = tuple(map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.ENOMEM)))  # no file is to blame


class Fault(NamedTuple):
    """An image that was replaced: its index in the data set, the name by which a person finds it, and why."""

    number: int
    name: str
    reason: str


def candidates(seed: int, epoch: int, index: int, size: int) -> Iterator[int]:
    """The image that was asked for, then those that stand in for it: a function of (seed, epoch, index) and the size.

    Args:
        seed: The run's.
        epoch: The sampler's epoch; in fine-tuning, the iteration.
        index: Of the image asked for, 0 <= index < size.
        size: Images in the data set.
    """
    yield index
    rng = np.random.default_rng([seed, epoch, index, 1])
    tried = {index}
    while len(tried) < size:
        other = int(rng.integers(size))
        if other not in tried:
            tried.add(other)
            yield other


def first_usable(
    indices: Iterator[int], read: Callable[[int], T], name: Callable[[int], str]
) -> tuple[int, T, list[Fault]]:
    """The first image that can be read.

    Args:
        indices: See :func:`candidates`.
        read: Gives the content of an image, or raises :class:`UnusableImage`; see :func:`read_again`.
        name: Of an image.

    Returns:
        Its index, its content, and the images before it that could not be used.

    Raises:
        UserError: So many in a row cannot be used that the fault lies elsewhere, none is left, or the process has too
            many open files or too little memory.
    """
    faults: list[Fault] = []
    for index in indices:
        try:
            return index, read(index), faults
        except UnusableImage as error:
            if any(reason in str(error) for reason in OF_THE_SYSTEM):
                raise
            faults.append(Fault(index, name(index), str(error)))
        if len(faults) == IN_A_ROW:
            break
    raise UserError(
        f"{len(faults)} images in a row cannot be used, the first: {faults[0].reason} Check that the disk with the "
        "images is still there."
    )


def read_again(read: Callable[[], T]) -> T:
    """Read once, and twice more where it fails: a network file system refuses for moments.

    Raises:
        UnusableImage: The last attempt's.
    """
    for attempt in range(READS - 1):
        try:
            return read()
        except UnusableImage as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
                time.sleep(PAUSES[attempt])
    return read()


def encode(faults: list[Fault]) -> str:
    """Faults as text, which every collate function takes as it is; empty without any."""
    return json.dumps(faults) if faults else ""


def decode(texts: list[str]) -> list[Fault]:
    """The faults of a batch, from the :func:`encode`\\ d text of each sample."""
    return [Fault(*fault) for text in texts if text for fault in json.loads(text)]
