"""Where images come from: encoded bytes by index, their names, maybe their labels. One spec string names a source.

Every source is random access, so one sampler serves all: the same order, split over ranks and workers and exact
resume whether the images are files, tar shards or a Hugging Face data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..errors import UserError
from .files import check_image_files, list_images


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
    """The source a spec names: a folder, searched recursively (labelled: one folder per class).

    Args:
        spec: Path of a folder.
        labelled: Also read the class of every image.

    Raises:
        UserError: Nothing is there, it holds no image, or no labels although they are asked for.
    """
    if labelled:
        return FileSource(*class_folders(spec))
    return FileSource(list_images(spec))


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
