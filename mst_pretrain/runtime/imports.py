"""Imports of libraries that print."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

NOISE = (
    "Could not import OneDL"  # mmdet and mmseg print it on whatever level: nothing here needs that package
)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Leave out the lines of :data:`NOISE` that imports in the block print; all others are printed at its end."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        lines = [line for line in printed.getvalue().splitlines() if not line.startswith(NOISE)]
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)
