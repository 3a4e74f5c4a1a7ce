"""Which image_id and category_id predictions get, so that they can be scored against the right annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError

from ..data.coco_file import read_coco
from ..data.coco_rules import entry_problems
from ..data.problems import stop_at_first
from ..evaluation.coco_metric import category_ids_of

# Of 1 to 90, the ids that COCO's instance annotations leave out (https://cocodataset.org).
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def read_ids(path: str | Path) -> dict[str, Any]:
    """Images and categories of a COCO JSON; annotations need not be in it (``image_info_test-dev2017.json``).

    Raises:
        UserError: It cannot be read, lacks one of them, or their entries cannot be used.
    """
    content = read_coco(path, ("images", "categories"))
    stop_at_first(entry_problems(Path(path), {**content, "annotations": []}, masks=False))
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


def image_ids(paths: Sequence[Path], content: dict[str, Any] | None, source: str | Path) -> list[int]:
    """Image id by file: the annotations'; without them the number in COCO's file names, else 1, 2, 3, ...

    A file is the image of the annotations that shares the longest end of the path with it, folders included.

    Args:
        paths: Files.
        content: Of :func:`read_ids`.
        source: Where it is from.

    Raises:
        UserError: The annotations lack an image, or which of two is meant stays open.
    """
    if content is not None:
        return _annotated_ids(paths, content, source)
    stems = [path.stem for path in paths]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(paths) + 1))


def _annotated_ids(paths: Sequence[Path], content: dict[str, Any], source: str | Path) -> list[int]:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for image in content["images"]:
        by_name.setdefault(Path(image["file_name"]).name, []).append(image)
    missing = [path for path in paths if path.name not in by_name]
    if missing:
        raise UserError(
            f"{source} has no image '{missing[0]}' ({len(missing)} of {len(paths)} are missing). Give the "
            "annotations of these images, or leave --annotations out."
        )
    owners: dict[int, Path] = {}
    for path in paths:
        ranked = [(_likeness(path, image["file_name"]), image) for image in by_name[path.name]]
        best = max(rank for rank, _ in ranked)
        found, *others = (image for rank, image in ranked if rank == best)
        if others:
            raise UserError(
                f"{path} may be '{found['file_name']}' (id {found['id']}) or '{others[0]['file_name']}' (id "
                f"{others[0]['id']}) of {source}. Put it into the folder that its name there has."
            )
        other = owners.setdefault(found["id"], path)
        if other is not path:
            raise UserError(
                f"{other} and {path} would both be '{found['file_name']}' (id {found['id']}) of {source}. Put them "
                "into the folders that their names there have, or predict one of them."
            )
    return list(owners)


def _likeness(path: Path, name: str) -> tuple[int, bool]:
    """How many parts of a path and of a name agree, from the end; and whether that is the whole name."""
    parts = Path(name).parts
    pairs = zip(reversed(Path(os.path.abspath(path)).parts), reversed(parts), strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return shared, shared == len(parts)
