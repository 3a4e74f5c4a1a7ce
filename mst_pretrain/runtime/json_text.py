"""JSON of a file or an address that may be anybody's: nested as deep as data are, not as deep as Python's stack."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from .errors import UserError

DEEPEST = 100  # levels; COCO's files have five
NOT_BRACKETS = bytes(sign for sign in range(256) if sign not in b"[]{}")
STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes 1 and -1
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)


def parse_json(
    text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """``json.loads`` that refuses absurd depth, on which Python's own reader and every use of the result would fail.

    Args:
        text: UTF-8, -16 or -32 where it is bytes.
        object_pairs_hook: See ``json.loads``.

    Raises:
        ValueError: It is not JSON (:class:`json.JSONDecodeError`), not text, or nested more than 100 levels deep.
    """
    if isinstance(text, bytes):
        encoding = json.detect_encoding(text)
        encoded = text if encoding.startswith("utf-8") else text.decode(encoding).encode(errors="replace")
    else:
        encoded = text.encode(errors="replace")
    if _depth(encoded) > DEEPEST and _depth(STRING.sub(b"", encoded)) > DEEPEST:  # names may have brackets
        raise ValueError(f"it is nested more than {DEEPEST} levels deep, as no such file is")
    return json.loads(text, object_pairs_hook=object_pairs_hook)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: It cannot be read, or is not JSON of ordinary depth.
    """
    try:
        return parse_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}). Copy it again.") from error


def _depth(encoded: bytes) -> int:
    """The most brackets that are open at one place, those within names too."""
    steps = encoded.translate(STEPS, NOT_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)
