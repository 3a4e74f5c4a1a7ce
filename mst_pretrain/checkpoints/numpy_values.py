"""NumPy's arrays and numbers in a checkpoint, built from bytes and from six plain types alone.

NumPy's own reader lets a file set the flags of a type, and then takes the bytes of an array for addresses of objects.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

PLAIN = ("float32", "float64", "int32", "int64", "uint32", "bool")
KINDS = {np.dtype(name).str[1:]: np.dtype(name) for name in PLAIN}  # 'f4', ...


class NumberKind:
    """Stands for ``numpy.dtype`` while a file is read.

    Args:
        text: NumPy's short name, for example ``f8``.
        align, copy: What pickles of NumPy hand on; without effect.
    """

    def __init__(self, text: Any, align: Any = False, copy: Any = False) -> None:
        if text not in KINDS:
            raise pickle.UnpicklingError(f"refused numpy.dtype({text!r})")
        self.dtype = KINDS[text]

    def __setstate__(self, state: Any) -> None:
        """Take the byte order, nothing else."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class PlainArray(np.ndarray):
    """Stands for ``numpy.ndarray`` while a file is read, and is saved as one."""

    def __setstate__(self, state: Any) -> None:
        """Take shape and bytes of a plain type."""
        _, shape, kind, fortran, content = state
        if not isinstance(kind, NumberKind) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("refused an array that is not of plain numbers")
        order: Any = bool(fortran)
        super().__setstate__((1, shape, kind.dtype, order, content))

    def __reduce__(self) -> Any:
        """As a plain array."""
        return self.view(np.ndarray).__reduce__()


PlainArray.__name__ = np.ndarray.__name__  # messages name the type of an entry


def empty_array(kind: Any, shape: Any, code: Any) -> PlainArray:
    """Stands for NumPy's ``_reconstruct``: an array that gets its content from :meth:`PlainArray.__setstate__`."""
    return np.ndarray.__new__(PlainArray, (0,), np.int8)


def plain_scalar(kind: Any, content: Any) -> Any:
    """Stands for NumPy's ``scalar``: one number."""
    if not isinstance(kind, NumberKind) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("refused a number that is not plain")
    return np.frombuffer(content, kind.dtype, 1)[0]


def safe_numpy() -> list[tuple[Any, str]]:
    """What stands for each of NumPy's names in a file, of NumPy 1 and 2."""
    places = ("numpy._core.multiarray", "numpy.core.multiarray")
    functions = [
        (stand_in, f"{place}.{name}")
        for place in places
        for stand_in, name in ((empty_array, "_reconstruct"), (plain_scalar, "scalar"))
    ]
    return [(NumberKind, "numpy.dtype"), (PlainArray, "numpy.ndarray"), *functions]
