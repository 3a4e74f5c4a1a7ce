"""Which images are called the best and the worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mst_toolkit.reporting.image_ranks import best_median_worst, confusion, image_scores, match_paths, spread
from tests.mst_toolkit.reporting.example_scores import detection_arrays, label_arrays


def test_a_detections_score_is_f1_of_what_is_drawn() -> None:
    """The order would not be that of the pictures: 2 objects; right and wrong detections as given."""
    arrays = detection_arrays(["a", "b", "c", "d"], [2, 1, 0, 2], [0, 1, 3, 2])
    assert image_scores(arrays) == pytest.approx([100, 50, 0, 100 * 4 / 6])
    arrays["scores"][:] = 0.29  # not drawn
    assert image_scores(arrays) == pytest.approx([0, 0, 0, 0])


def test_an_image_without_objects_is_right_when_nothing_is_found() -> None:
    """All empty images would be the worst ones, or be lost."""
    arrays = detection_arrays(["a", "b"], [0, 0], [0, 1])
    arrays["objects"][:] = 0
    assert image_scores(arrays).tolist() == [100, 0]


def test_a_detection_on_a_crowd_does_not_count() -> None:
    """COCO ignores it; here it would make an image one of the worst."""
    arrays = detection_arrays(["a"], [2], [1])
    arrays["ignored"][-1] = 1
    assert image_scores(arrays).tolist() == [100]


def test_a_segmentations_score_is_the_mean_iou_of_the_image() -> None:
    """Classes that an image does not have would pull it down."""
    matrices = np.array([[[6, 2, 0], [2, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    arrays = label_arrays(["a", "b"], matrices, ["x", "y", "z"])
    scores = image_scores(arrays)
    assert scores[0] == pytest.approx(100 * (6 / 10 + 0) / 2) and np.isnan(scores[1])
    assert confusion(arrays) is not None and np.array_equal(confusion(arrays), matrices.sum(0))
    assert confusion(detection_arrays(["a"], [1], [0])) is None


def test_groups_do_not_overlap() -> None:
    """One image would be shown as good and as bad."""
    scores = np.arange(100.0)
    scores[50] = np.nan
    groups = best_median_worst(scores, 8)
    assert groups["best"] == [99, 98, 97, 96, 95, 94, 93, 92]
    assert groups["worst"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert groups["median"] == [54, 53, 52, 51, 49, 48, 47, 46]
    for count in range(12):
        groups = best_median_worst(np.arange(float(count)), 8)
        places = [place for group in groups.values() for place in group]
        assert len(places) == len(set(places))
        assert count == 0 or len(places) >= min(count, 3)


def test_names_are_matched_from_their_end() -> None:
    """Truth and score of different images would stand together."""
    paths = [Path("/d/train/a.png"), Path("/d/val/a.png"), Path("/d/val/b.png")]
    assert match_paths(["val/a.png", "b.png", "a.png", "c.png"], paths) == {0: 1, 1: 2}


def test_spread() -> None:
    """The pictures would be the first images of one folder."""
    assert spread(100, 4) == [0, 25, 50, 75]
    assert spread(3, 12) == [0, 1, 2] and spread(0, 4) == []
