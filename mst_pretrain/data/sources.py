"""Where images come from: encoded bytes by index, their names, maybe their labels. One spec string names a source.

Every source is random access, so one sampler serves all: the same order, split over ranks and workers and exact
resume whether the images are files, tar shards or a Hugging Face data set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from ..errors import UserError
from . import hub
from .fetch import is_url
from .files import SHOWN, check_image_files, list_images
from .shards import ShardSource, expand_shards

SHARDS = re.compile(r"\.tar(::|$)|\.tar[?#]")


class ImageSource(Protocol):
    """N encoded images. Instances are pickled to data workers.

    Attributes:
        labels: Class index of each image, or None for a source opened without labels.
        classes: Class names by index; empty without labels.
    """

    labels: list[int] | None
    classes: list[str]

    def __len__(self) -> int:
        """N."""
        ...

    def name(self, index: int) -> str:
        """What a person needs to find image ``index``: a path, or shard and member."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded file.

        Raises:
            UserError: It cannot be read; the message has its name.
        """
        ...

    def check(self) -> None:
        """Look at every image without decoding where that can tell a truncated one.

        Raises:
            UserError: Some are unusable: their number and the first names.
        """
        ...


class FileSource:
    """Image files in a fixed order.

    Args:
        paths: The files.
        labels: Class index of each, or None.
        classes: Class names by index.
    """

    def __init__(
        self, paths: list[Path], labels: list[int] | None = None, classes: list[str] | None = None
    ) -> None:
        self.paths, self.labels, self.classes = paths, labels, classes or []

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Its path."""
        return str(self.paths[index])

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        try:
            return self.paths[index].read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.paths[index]} cannot be read ({error.strerror}). Remove it from the data or copy it again."
            ) from error

    def check(self) -> None:
        """See :func:`check_image_files`."""
        check_image_files(self.paths)


def open_source(spec: str | Path, labelled: bool = False) -> ImageSource:
    """The source that a spec names.

    ==================================  ==================================================================
    ``PHOTOS``                          a folder, searched recursively; labelled: one folder per class
    ``photos.txt``                      a list, see :func:`read_list`
    ``train-{000..146}.tar``, ``*.tar``  WebDataset shards, local or behind URLs, joined by ``::``; so is a
                                        folder that holds ``.tar`` files and no image
    ``hf:PATH@SPLIT#COLUMN``            a Hugging Face data set
    ==================================  ==================================================================

    Args:
        spec: One of these.
        labelled: Also read the class of every image.

    Raises:
        UserError: Nothing is there, it holds no image, or no labels although they are asked for.
    """
    text = str(spec)
    if text.startswith(hub.PREFIX):
        return hub.HubSource(text, labelled)
    if is_url(text) or SHARDS.search(text):
        return ShardSource(expand_shards(text), labelled)
    path = Path(spec)
    if path.suffix.lower() == ".txt" and not path.is_dir():
        return FileSource(*read_list(path, labelled))
    if path.is_dir() and (shards := sorted(path.glob("*.tar"))) and not _has_image(path):
        return ShardSource(shards, labelled)
    if labelled:
        return FileSource(*class_folders(path))
    return FileSource(list_images(path))


def _has_image(folder: Path) -> bool:
    try:
        return bool(list_images(folder))
    except UserError:
        return False


def read_list(path: Path, labelled: bool = False) -> tuple[list[Path], list[int] | None, list[str]]:
    """Images of a text file: one path per line, relative to the file's folder, in the order of the lines.

    A class may stand behind the path: after a tab, any text; after a blank, a whole number. Empty lines and lines that
    begin with ``#`` are skipped.

    Returns:
        Paths, class index of each or None, and the class names, sorted (as numbers where all are).

    Raises:
        UserError: The file is missing, empty or no text; images are missing; or a line has no class.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"list {path} cannot be read ({error}). It is a text file with one path per line."
        ) from error
    entries = [split_line(line) for line in lines if line and not line.startswith("#")]
    if not entries:
        raise UserError(f"list {path} names no image. Write one path per line.")
    paths = [path.parent / name for name, _ in entries]
    if missing := [str(image) for image in paths if not image.is_file()]:
        raise UserError(
            f"{path} names {len(missing)} images of {len(paths)} that do not exist: {', '.join(missing[:SHOWN])}. "
            "Paths are relative to the list's folder. Copy the images there, or remove the lines."
        )
    if not labelled:
        return paths, None, []
    if bare := [name for name, label in entries if not label]:
        raise UserError(
            f"{path}: {len(bare)} lines have no class: {', '.join(bare[:SHOWN])}. Write PATH<TAB>CLASS."
        )
    names = {label for _, label in entries}
    numeric = all(name.isdigit() for name in names)
    classes = sorted(names, key=lambda name: (int(name) if numeric else 0, name))
    index = {name: place for place, name in enumerate(classes)}
    return paths, [index[label] for _, label in entries], classes


def split_line(line: str) -> tuple[str, str]:
    """Path and class of one line of a list; the class may be empty."""
    if "\t" in line:
        name, _, label = line.rpartition("\t")
        return name.strip(), label.strip()
    name, _, label = line.rpartition(" ")
    return (name.strip(), label) if name and label.isdigit() else (line, "")


def class_folders(root: str | Path) -> tuple[list[Path], list[int], list[str]]:
    """Images of one folder per class.

    Returns:
        Paths, class index of each (folders in sorted order), and the class names.

    Raises:
        UserError: ``root`` is missing or has no class folder with an image.
    """
    root = Path(root)
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if not names:
        raise UserError(
            f"{root} has no class folders. Labelled images are expected as {root}/CLASS/IMAGE.jpg."
        )
    per_class = [list_images(root / name) for name in names]
    labels = [label for label, paths in enumerate(per_class) for _ in paths]
    return [path for paths in per_class for path in paths], labels, names
