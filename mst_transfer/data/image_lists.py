"""Lists of image names: a part of a data set, such as a split made without copying anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_pretrain.data.files import first_of
from mst_pretrain.runtime.errors import UserError

ImageList = (
    str | Path | Sequence[str] | None
)  # a text file with one name a line, the names themselves, or all images


def read_image_list(image_list: ImageList) -> list[str] | None:
    """The names of a list, in its order; None where there is no list.

    Raises:
        UserError: The file cannot be read, the list is empty, or a name stands in it twice.
    """
    if image_list is None:
        return None
    if isinstance(image_list, str | Path):
        try:
            lines = Path(image_list).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"The list of images {image_list} cannot be read ({error}). Copy it back, or make the split again in a "
                "new run folder."
            ) from error
        names = [line for line in lines if line]
        where = str(image_list)
    else:
        names, where = list(image_list), "image_list"
    if not names:
        raise UserError(f"{where} names no image. Give the names of the images, one a line.")
    if len(set(names)) < len(names):
        again = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{where} has names twice: {first_of(again)}. Remove the repeated lines.")
    return names


def of_images(content: dict[str, Any], image_list: ImageList, source: str | Path) -> dict[str, Any]:
    """The part of a parsed COCO file that a list names: its images, in the file's order, and their annotations.

    Args:
        content: Images, annotations and categories; it stays as it is.
        image_list: Values of ``file_name``; None: everything.
        source: The file, for messages.

    Raises:
        UserError: See :func:`read_image_list`; or the file lacks an image of the list.
    """
    names = read_image_list(image_list)
    if names is None:
        return content
    wanted = set(names)
    images = [image for image in content["images"] if image.get("file_name") in wanted]
    missing = wanted - {image["file_name"] for image in images}
    if missing:
        raise UserError(
            f"{source} has no entry for {len(missing)} of {len(names)} images of the list: {first_of(sorted(missing))}"
            ". The file has changed since the list was made: make the split again in a new run folder."
        )
    ids = {image.get("id") for image in images}
    kept = [annotation for annotation in content["annotations"] if annotation.get("image_id") in ids]
    return {**content, "images": images, "annotations": kept}
