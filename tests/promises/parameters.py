"""The mutators as parameters of a test; those whose verdict does not hold yet must fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest


def as_parameters(cases: Sequence[Any], still_open: Mapping[str, str]) -> list[Any]:
    """Returns a parameter for each case, named after it; `still_open` has the reasons of those that must fail."""
    return [
        pytest.param(
            case,
            id=case.name,
            marks=[pytest.mark.xfail(strict=True, reason=still_open[case.name])]
            if case.name in still_open
            else [],
        )
        for case in cases
    ]
