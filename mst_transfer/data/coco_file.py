"""Reading a COCO JSON, once for all who ask for it while a run starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError

LISTS = ("images", "annotations", "categories")

_kept: dict[tuple[str, int, int], Any] | None = (
    None  # the file parsed last, by path, size, time of modification
)


@contextmanager
def parsing_once() -> Iterator[None]:
    """Within this block the JSON read last is not parsed again unless it changed; at its end it leaves the memory."""
    global _kept
    if _kept is not None:  # the outer block keeps it
        yield
        return
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def read_coco(ann_file: str | Path, lists: Sequence[str] = LISTS) -> dict[str, Any]:
    """Read a COCO JSON; the result may be shared (:func:`parsing_once`) and must not be changed.

    Args:
        ann_file: The file.
        lists: The lists that it must have, none of them empty.

    Raises:
        UserError: The file is missing, is not JSON, or lacks one of the lists.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise UserError(f"COCO annotation file {path} does not exist. Check the path and the data root.")
    try:
        content: dict[str, Any] = _parse(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}). Copy or export it again.") from error
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
            raise UserError(f"{path} has no entries under '{key}'. Export it as COCO instance annotations.")
    return content


def _parse(path: Path) -> Any:
    if _kept is None:
        return json.loads(path.read_text(encoding="utf-8"))
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if key not in _kept:
        _kept.clear()  # one file at a time: COCO's training annotations fill gigabytes
        _kept[key] = json.loads(path.read_text(encoding="utf-8"))
    return _kept[key]


def coco_classes(content: dict[str, Any]) -> tuple[str, ...]:
    """Category names in the file's order, which is the order of mmdet's labels."""
    return tuple(str(category["name"]) for category in content["categories"])
