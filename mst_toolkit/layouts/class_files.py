"""The list of classes that lies beside label maps: names, and where the maps have colors, a color for each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.json_text import parse_json
from mst_pretrain.runtime.terminal import CONTROL

from .found import first_names, layout_error

NAMES = ("classes.txt", "classes.json", "labelmap.txt")  # the last one is CVAT's
TEMPLATE = "classes_template.txt"
IGNORED = ("ignore", "ignored", "void")  # names of no class
SHAPE = "One class a line: NAME, or NAME R G B (0 to 255), or NAME #rrggbb."

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """What a list says.

    Attributes:
        path: The file.
        names: In the order of the ids 0, 1, ...
        colors: Of each name; None where the list has none.
    """

    path: Path
    names: tuple[str, ...]
    colors: tuple[Color, ...] | None


def find_class_list(folders: Iterable[Path]) -> ClassList | None:
    """The first list in some folders.

    Raises:
        UserError: D15: it cannot be used.
    """
    for folder in folders:
        for name in NAMES:
            if (folder / name).is_file():
                return read_class_list(folder / name)
    return None


def read_class_list(path: Path) -> ClassList:
    """A ``classes.txt``, CVAT's ``labelmap.txt`` (``name:r,g,b::``), or a ``classes.json``.

    The JSON is a list of names, a list of ``{"name": ..., "color": [r, g, b]}``, or an object of names and colors.

    Raises:
        UserError: D15: it cannot be read, is empty, names a class or a color twice, or has colors for some names only.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = (
            _of_json(parse_json(text)) if path.suffix == ".json" else [_of_line(one) for one in _lines(text)]
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise layout_error("D15", f"{path} cannot be read as a list of classes ({error}).", SHAPE) from error
    names = tuple(name for name, _ in entries)
    if odd := [repr(name) for name in names if CONTROL.search(name)]:
        raise layout_error("D15", f"{path} has control characters in names: {first_names(odd)}.", SHAPE)
    colors = tuple(color for _, color in entries if color is not None)
    if (
        not names
        or len(set(names)) < len(names)
        or len(set(colors)) < len(colors)
        or len(colors) not in (0, len(names))
    ):
        what = (
            "names no class" if not names else "has a name or a color twice, or a color for some names only"
        )
        raise layout_error("D15", f"{path} {what}.", SHAPE)
    return ClassList(path, names, colors or None)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _of_line(text: str) -> tuple[str, Color | None]:
    cvat = re.fullmatch(r"([^:]+):(\d+),(\d+),(\d+):.*", text)
    plain = cvat or re.fullmatch(r"(.+?)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)", text)
    if plain:
        return plain[1].strip(), _color([int(plain[2]), int(plain[3]), int(plain[4])])
    code = re.fullmatch(r"(.+?)\s+#([0-9a-fA-F]{6})", text)
    if code:
        return code[1].strip(), _color(list(bytes.fromhex(code[2])))
    return text, None


def _of_json(content: Any) -> list[tuple[str, Color | None]]:
    if isinstance(content, dict):
        return [(str(name), _color(color)) for name, color in content.items()]
    return [
        (str(one["name"]), _color(one["color"]) if one.get("color") else None)
        if isinstance(one, dict)
        else (str(one), None)
        for one in content
    ]


def _color(values: list[int]) -> Color:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{values} is not a color")
    return red, green, blue


def write_template(folder: Path, colors: Iterable[Color]) -> Path:
    """A list to fill in, beside the data or, where that may not be written, in the current folder."""
    from mst_pretrain.runtime.atomic import write_text
    from mst_pretrain.runtime.errors import UserError

    lines = [
        "# Give each color its name ('ignore': these pixels do not count), and save this file as classes.txt."
    ]
    lines += [f"class_{place} {red} {green} {blue}" for place, (red, green, blue) in enumerate(colors)]
    for place in (folder, Path.cwd()):
        try:
            write_text("\n".join(lines) + "\n", place / TEMPLATE)
            return place / TEMPLATE
        except (UserError, OSError):
            continue
    raise layout_error(
        "D08",
        f"{folder / TEMPLATE} cannot be written.",
        f"Write the list of colors yourself as classes.txt. {SHAPE}",
    )
