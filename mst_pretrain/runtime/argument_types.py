"""Kinds of values on the command line. Importing it imports no library: help must not wait for torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

PRECISIONS = ("auto", "float32", "bfloat16")


def json_object(text: str) -> dict[str, Any]:
    """A JSON object from the command line."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("a JSON object is expected, e.g. '{\"patch_size\": 8}'")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is expected, got '{text}'")
    return int(text)
