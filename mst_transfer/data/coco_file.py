"""Reading a COCO JSON, once for all who ask for it while a run starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from mst_pretrain.data.headers import other_kind
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.json_text import parse_json

from .coco_repair import LISTS, repaired
from .missing import there_instead

USED = (  # keys of entries that are read
    *("id", "file_name", "height", "width", "name", "image_id", "category_id", "bbox", "area", "iscrowd"),
    *("ignore", "segmentation", "counts", "size"),
)

Parsed = tuple[Any, list[str]]  # the content as repaired, and what was repaired

# The files parsed, by path, size and time of modification.
_kept: dict[tuple[str, int, int], Parsed] | None = None
_said: set[tuple[str, int, int]] = set()  # files whose repairs this process has printed


@contextmanager
def parsing_once() -> Iterator[None]:
    """Within this block no JSON is parsed twice unless it changed; at its end the contents leave the memory."""
    global _kept
    if _kept is not None:  # the outer block keeps them
        yield
        return
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def forget_parsed() -> None:
    """Let the contents go before the block of :func:`parsing_once` ends: they fill gigabytes, and training is long."""
    global _kept
    _kept = None


def read_coco(ann_file: str | Path, lists: Sequence[str] = LISTS) -> dict[str, Any]:
    """Read a COCO JSON and repair it in memory; what is repaired is printed once for each file and process.

    The result may be shared (:func:`parsing_once`) and must not be changed.

    Args:
        ann_file: The file.
        lists: The lists that it must have, none of them empty.

    Raises:
        UserError: The file is missing, is not JSON, or lacks one of the lists.
    """
    content, notes = read_with_notes(ann_file, lists)
    key = _key(Path(ann_file))
    if notes and key not in _said and is_main_process():
        print("\n".join(f"note: {ann_file}: {note}" for note in notes), flush=True)
        print("note: this was done in memory, the file stays as it is", flush=True)
    _said.add(key)
    return content


def read_with_notes(ann_file: str | Path, lists: Sequence[str] = LISTS) -> tuple[dict[str, Any], list[str]]:
    """:func:`read_coco` for those who print the notes themselves: the content, and a line for each kind of repair."""
    path = Path(ann_file)
    if not path.is_file():
        instead = there_instead(path)
        raise UserError(
            f"COCO annotation file {path} does not exist{instead}. Check the path and the data root."
        )
    try:
        content, notes = _parse(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} {_why_unreadable(path, error)}") from error
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
            raise UserError(f"{path} has no entries under '{key}'. Export it as COCO instance annotations.")
    return content if "annotations" in content else {**content, "annotations": []}, notes


def _why_unreadable(path: Path, error: Exception) -> str:
    if not isinstance(error, OSError):
        with open(path, "rb") as file:
            kind = other_kind(file.read(512))
        if kind:
            return f"is {kind}."
    if isinstance(error, UnicodeDecodeError):
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        return f"is not {error.encoding.upper()} ({byte}): save it as UTF-8."
    return f"cannot be read as JSON ({error}). Copy or export it again."


def _parse(path: Path) -> Parsed:
    key = _key(path)
    if _kept is not None and key in _kept:
        return _kept[key]
    encoded = path.read_bytes()
    content, notes = repaired(parse_json(encoded, object_pairs_hook=_entry))
    encoding = json.detect_encoding(encoded)
    if encoding != "utf-8":
        notes = [f"the file is not plain UTF-8: read as {encoding}", *notes]
    if _kept is not None:
        _kept[key] = content, notes
    return content, notes


def _key(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns


def _entry(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the JSON; of two values under one key Python would forget the first."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        known = [key for key in twice if key in (*LISTS, *USED)]
        if known:
            raise ValueError(f"an entry has '{known[0]}' twice")
    return entry


def coco_classes(content: dict[str, Any]) -> tuple[str, ...]:
    """Category names in the file's order, which is the order of mmdet's labels."""
    return tuple(category["name"] for category in content["categories"])
