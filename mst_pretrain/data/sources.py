"""Where images come from: encoded bytes by index, their names, maybe their labels. One spec string names a source.

Every source is random access, so one sampler serves all: the same order, split over ranks and workers and exact
resume whether the images are files, tar shards or a Hugging Face data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..errors import UserError
from .files import check_image_files, list_images
from .hub import PREFIX, HubSource
from .labels import class_folders
from .lists import read_list
from .shards import ShardSource, names_shards, open_shards, shards_in


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
                f"{self.paths[index]} cannot be read ({error.strerror}). Copy it again, or put "
                "another image under its name: a pretraining is resumed only with as many images as before."
            ) from error

    def check(self) -> None:
        """See :func:`check_image_files`."""
        check_image_files(self.paths)


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

    Args:
        spec: A folder, a file, a pattern or a name; see the table.
        labelled: Also read the class of every image.

    Raises:
        UserError: Nothing is there, it holds no image, is damaged, or has no labels although they are asked for.
    """
    text = str(spec)
    if text.startswith(PREFIX) and not text.startswith(f"{PREFIX}//"):  # hf:// is webdataset's, for shards
        return HubSource(text, labelled)
    folder = Path(spec)
    if not folder.is_dir():
        if names_shards(text):
            return open_shards(text, labelled)
        if folder.suffix == ".txt":
            return FileSource(*read_list(folder, labelled))
    try:
        return FileSource(*class_folders(folder)) if labelled else FileSource(list_images(folder))
    except UserError:
        if shards := shards_in(folder):
            return ShardSource(shards, labelled)
        raise
