"""Where images come from: encoded bytes by index, their names, maybe their labels. One spec string names a source.

Every source is random access, so one sampler serves all: the same order, split over ranks and workers and exact
resume whether the images are files, tar shards or a Hugging Face data set.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Protocol

import numpy as np

from ..runtime.errors import UnusableImage, UserError
from .checking import check_changed_files
from .fetch import local_shards
from .files import first_of, holds_image, image_names
from .hub import PREFIX, HubSource
from .labels import class_folders
from .lists import read_list
from .packed import PackedPaths
from .shards import ShardSource, names_shards, shards_in
from .suffixes import say_left_out

SAMPLED = 1000  # images that are looked for when a run is resumed
MANY = 0.1  # share of missing ones from which it is another folder


class ImageSource(Protocol):
    """N encoded images. Instances are pickled to data workers.

    Attributes:
        labels: Class index of each image, [N] int64, or None for a source opened without labels.
        classes: Class names by index; empty without labels.
    """

    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a person needs to find image ``index``: a path, or shard and member."""

    def read(self, index: int) -> bytes:
        """The encoded file; raises UnusableImage with its name where it cannot be read."""

    def check(self) -> None:
        """Look at every image; raises UserError with the number and the first names of the unusable ones."""


class FileSource:
    """Image files in a fixed order.

    Args:
        paths: The files.
        labels: Class index of each, [N] int64, or None.
        classes: Class names by index.
        origin: The folder or list that named them. Under its name :meth:`check` remembers the files it found whole.
    """

    def __init__(
        self,
        paths: PackedPaths,
        labels: np.ndarray | None = None,
        classes: list[str] | None = None,
        *,
        origin: Path,
    ) -> None:
        self.paths, self.labels, self.classes, self.origin = paths, labels, classes or [], origin

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Its path."""
        return self.paths[index]

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        path = self.paths[index]
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UnusableImage(
                f"{path} cannot be read ({error.strerror}). Copy it again, or put "
                "another image under its name: a pretraining is resumed only with as many images as before."
            ) from error

    def check(self) -> None:
        """See :func:`check_changed_files`."""
        check_changed_files(self.paths, self.origin)


def open_source(spec: str | Path, labelled: bool = False) -> ImageSource:
    """The source that a spec names.

    ==================================== ================================================ =========================
    spec                                 images                                           labels
    ==================================== ================================================ =========================
    a folder                             every image below it, sorted by path             CLASS/IMAGE.jpg
    a list ``*.txt``                     one path a line, :func:`read_list`                behind the path
    ``*.tar``, URLs, ``{000..146}``      WebDataset shards, :func:`local_shards`           ``KEY.cls``
    a folder of ``*.tar`` and no image   the same                                         ``KEY.cls``
    ``hf:NAME[@SPLIT][#COLUMN]``         Hugging Face data set, :class:`HubSource`         its ClassLabel column
    ==================================== ================================================ =========================

    Raises:
        UserError: Nothing is there, it holds no image, is damaged, or has no labels although they are asked for.
    """
    text = str(spec)
    if text.startswith(PREFIX) and not text.startswith(f"{PREFIX}//"):  # hf:// is webdataset's, for shards
        return HubSource(text, labelled)
    folder = Path(spec)
    if not folder.is_dir():
        if names_shards(text):
            return ShardSource(local_shards(text), labelled)
        if folder.suffix == ".txt":
            return FileSource(*read_list(folder, labelled), origin=folder)
    left_out: Counter[str] = Counter()
    try:
        if labelled:
            source = FileSource(*class_folders(folder, left_out), origin=folder)
        else:
            source = FileSource(PackedPaths(image_names(folder, left_out), folder), origin=folder)
    except UserError:
        if (shards := shards_in(folder)) and not holds_image(folder):
            return ShardSource(shards, labelled)
        raise
    say_left_out(text, len(source), left_out)
    return source


def open_again(spec: str | Path, names: Path) -> FileSource:
    """The files with which a run began, in their order, whatever was added to or has vanished from the folder since.

    Args:
        spec: The folder, which may have moved, or the list.
        names: Of :meth:`PackedPaths.save`.

    Raises:
        UserError: Many of them are not there.
    """
    folder = Path(spec)
    paths = PackedPaths.load(names, folder if folder.is_dir() else folder.parent)
    asked = range(0, len(paths), max(1, len(paths) // SAMPLED))
    missing = [paths[index] for index in asked if not os.path.exists(paths[index])]
    if len(missing) > MANY * len(asked):
        raise UserError(
            f"cannot resume: of the {len(paths)} images of the first run {len(asked)} were looked for, and "
            f"{len(missing)} are not there: {first_of(missing)}. Point data_root at the images of the first run."
        )
    return FileSource(paths, origin=folder)


def check_source(spec: str | Path) -> None:
    """Raise what :func:`open_source` would, without listing a folder of a million images."""
    if not (Path(spec).is_dir() and holds_image(spec)):
        open_source(spec)
