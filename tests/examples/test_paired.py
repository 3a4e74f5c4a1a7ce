"""mIoU and the paired interval on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from examples.quickstart.paired import difference, mean_iou


def test_mean_iou_by_hand() -> None:
    """Every score of the demonstration would be another quantity than mIoU."""
    # class 0: 6 hits, union 6 + 2 + 1 = 9; class 1: 3 hits, union 3 + 1 + 2 = 6; class 2 never occurs
    confusion = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert mean_iou(confusion) == pytest.approx(100 * (6 / 9 + 3 / 6) / 2)
    assert mean_iou(np.stack([confusion, np.diag([1, 1, 1])])) == pytest.approx([100 * 7 / 12, 100])


def two_kinds(hits: list[int]) -> np.ndarray:
    """One scene each: so many of ten pixels of each of two classes are right."""
    return np.array([[[hit, 10 - hit], [10 - hit, hit]] for hit in hits])


def test_interval_is_of_pairs() -> None:
    """Two arms that differ by the same in every scene would seem unsure, because scenes differ among themselves."""
    easy_and_hard = [2, 9] * 20
    one, other = two_kinds(easy_and_hard), two_kinds([hit + 1 for hit in easy_and_hard])
    found = difference(one, other, resamples=500)
    ious = [100 * share / (2 - share) for share in (0.55, 0.65)]  # hits h of 20: h / (40 - h)
    assert found.value == pytest.approx(ious[1] - ious[0])
    # one scene more or less of a kind moves both arms together: the interval is a fraction of the difference
    assert found.value - 2 < found.low <= found.value <= found.high < found.value + 2


def test_interval_covers_nothing_where_nothing_is_known() -> None:
    """A difference from a few scenes that point both ways would be called sure."""
    found = difference(two_kinds([2, 8, 2, 8]), two_kinds([8, 2, 8, 3]), resamples=500)
    assert found.low < 0 < found.value < found.high
    again = difference(two_kinds([2, 8, 2, 8]), two_kinds([8, 2, 8, 3]), resamples=500)
    assert found == again
    with pytest.raises(ValueError, match="same scenes"):
        difference(two_kinds([1]), two_kinds([1, 2]))
