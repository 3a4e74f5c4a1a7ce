"""The small things a page is made of: pictures, tables, texts of numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mst_pretrain.runtime.errors import UserError

from .reported_run import number

NONE = "-"
# What reading data and checkpoints of a run may end in, long after it: files are gone, packages are not installed.
GONE = (UserError, OSError, ImportError, LookupError, ValueError, RuntimeError, AssertionError)


@dataclass(frozen=True)
class Shown:
    """A picture with its caption; the page encodes it as small as it must be."""

    image: Image.Image
    caption: str = ""


@dataclass(frozen=True)
class ScoreBar:
    """Score, interval and baseline of a row, in pixels of a line of 140."""

    value: float
    low: float | None
    high: float | None
    baseline: float | None


@dataclass(frozen=True)
class PageTable:
    """Texts in rows. Numbers are right-aligned.

    Attributes:
        head: One text per column.
        rows: As many texts each.
        texts: How many columns from the left hold texts.
        bars: A drawing of every row's score, or None for a row without one; empty: no such column.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    bars: Sequence[ScoreBar | None] = ()


@dataclass
class PictureRow:
    """Pictures that belong together, side by side."""

    pictures: list[Shown]
    caption: str = ""


@dataclass
class PagePart:
    """A part of a section: a title, sentences, and whatever else it has.

    Attributes:
        title: Of the part, or empty.
        sentences: Stand first.
        tables: Under them.
        rows: Rows of pictures.
        left_out: What is not there, a sentence each.
        colors: Names and colours of a legend, ``#rrggbb``.
    """

    title: str = ""
    sentences: list[str] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    rows: list[PictureRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    colors: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def without(part: PagePart, what: str) -> Iterator[None]:
    """Where the block cannot be done, the part says in one sentence that it lacks something, and why."""
    try:
        yield
    except GONE as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split()).rstrip(".")
        part.left_out.append(f"{what} left out: {reason}.")


def shown_number(value: Any, digits: int = 1) -> str:
    """A number with a fixed number of digits behind the point; a dash for what is none."""
    known = number(value)
    if known is None:
        return NONE
    return f"{int(value):,}" if isinstance(value, int) else f"{known:,.{digits}f}"


def interval(entry: dict[str, Any]) -> str:
    """``31.0 to 37.1``, or a dash."""
    low, high = number(entry.get("low")), number(entry.get("high"))
    return NONE if low is None or high is None else f"{low:.1f} to {high:.1f}"


def plain(value: Any) -> str:
    """A value of a JSON file as a person reads it."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or NONE
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items()) or NONE
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def encoder(side: int, quality: int) -> Callable[[Image.Image], str]:
    """A function from a picture to a data URI of a JPEG.

    Args:
        side: The longer side has at most this many pixels.
        quality: Of the JPEG.
    """

    def encode(image: Image.Image) -> str:
        small = image.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=quality, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()

    return encode
