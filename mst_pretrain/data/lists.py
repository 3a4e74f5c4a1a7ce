"""A text file that lists images, with or without labels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..runtime.errors import UserError
from .files import first_of
from .labels import number_classes
from .packed import PackedPaths
from .suffixes import IMAGE_SUFFIXES, why_not

_SUFFIX = "|".join(map(re.escape, IMAGE_SUFFIXES))
# Greedy: a path with spaces in it goes as far as the line's last image suffix
LINE = re.compile(rf"(?P<path>.*(?:{_SUFFIX}))(?:\s+(?P<label>.*))?", re.IGNORECASE)
OTHER_SUFFIX = re.compile(r"\.\w+(?=\s|$)")


def read_list(
    path: str | Path, labelled: bool = False
) -> tuple[PackedPaths, np.ndarray | None, list[str] | None]:
    """One image a line: a path that ends with its image suffix, then maybe white space and a label.

    So ``cats/a b.jpg<tab>house cat`` and mmpretrain's ``val_1.JPEG 65`` are both read. Paths are absolute or relative
    to the list's folder. Empty lines and lines that begin with ``#`` are left out.

    Returns:
        The paths in the list's order; class index of each, [N] int64, and the class names, or None and None.

    Raises:
        UserError: The list cannot be read, a line has no image path, a label is missing, there is no line, or images
            are missing: their number and the first names.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Image list {path} cannot be read ({error}). It must be UTF-8 text.") from error
    paths: list[str] = []
    names: list[str] = []
    missing: list[Path] = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            suffix = OTHER_SUFFIX.search(line)
            why = (
                f"{suffix[0]} files are {why_not(suffix[0].lower())}"
                if suffix
                else ".jpg .png .webp .tif ..."
            )
            raise UserError(
                f"{path}, line {number}: '{line}' has no path of an image ({why}). Write one path a line, a label "
                "behind white space, # before a comment."
            )
        if labelled and not match["label"]:
            raise UserError(
                f"{path}, line {number}: '{line}' has no label. Write it behind the path and white space."
            )
        listed = path.parent / match["path"]
        paths.append(match["path"])
        names.append(match["label"] or "")
        if not listed.is_file():
            missing.append(listed)
    if not paths:
        raise UserError(f"Image list {path} lists no image. Write one path a line.")
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(paths)} listed images do not exist: {first_of(missing)}. Correct the "
            f"paths (absolute, or relative to {path.parent.resolve()}), or remove their lines."
        )
    labels, classes = number_classes(names) if labelled else (None, None)
    return PackedPaths(paths, path.parent), labels, classes
