"""Which image_id and category_id predictions get, so that they can be scored against the right annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_pretrain.errors import UserError

from ..evaluation.coco_metric import category_ids_of

# Of 1 to 90, the ids that COCO's instance annotations leave out (https://cocodataset.org).
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def read_ids(path: str | Path) -> dict[str, Any]:
    """Images and categories of a COCO JSON; annotations need not be in it (``image_info_test-dev2017.json``).

    Raises:
        UserError: It cannot be read, or lacks one of them.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}). Give a COCO annotation file.") from error
    for key in ("images", "categories"):
        if not isinstance(content, dict) or not content.get(key):
            raise UserError(f"{path} has no '{key}'. Give a COCO annotation file.")
    return content


def category_ids(classes: Sequence[str], content: dict[str, Any] | None, source: str | Path) -> list[int]:
    """Category id by label: the annotations'; without them COCO's own for COCO's 80 classes, else 1, 2, 3, ...

    Raises:
        UserError: The annotations lack a class.
    """
    if content is not None:
        return category_ids_of(content, classes, source)
    from mmdet.datasets import CocoDataset

    if tuple(classes) == tuple(CocoDataset.METAINFO["classes"]):
        return [i for i in range(1, 91) if i not in UNUSED]
    return list(range(1, len(classes) + 1))


def image_ids(names: Sequence[str], content: dict[str, Any] | None, source: str | Path) -> list[int]:
    """Image id by file: the annotations'; without them the number in COCO's file names, else 1, 2, 3, ...

    Args:
        names: File names, as the annotations have them, or behind folders.
        content: Of :func:`read_ids`.
        source: Where it is from.

    Raises:
        UserError: The annotations lack an image.
    """
    if content is not None:
        known = {str(image["file_name"]): int(image["id"]) for image in content["images"]}
        last = {Path(name).name: image_id for name, image_id in known.items()}
        found = [known.get(name, last.get(Path(name).name)) for name in names]
        missing = [name for name, image_id in zip(names, found, strict=True) if image_id is None]
        if missing:
            raise UserError(
                f"{source} has no image '{missing[0]}' ({len(missing)} of {len(names)} are missing). Give the "
                "annotations of these images, or leave --annotations out."
            )
        return [image_id for image_id in found if image_id is not None]
    stems = [Path(name).stem for name in names]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(names) + 1))
