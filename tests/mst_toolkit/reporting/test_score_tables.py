"""Tables of scores: the baseline in every row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mst_toolkit.reporting.reported_run import ReportedRun
from mst_toolkit.reporting.score_tables import all_scores, class_part, confusion_part
from mst_toolkit.reporting.shown import ScoreBar
from tests.mst_toolkit.reporting.example_runs import HOSTILE, metrics
from tests.mst_toolkit.reporting.example_scores import label_arrays


def test_every_class_has_its_baseline_beside_it() -> None:
    """A class that is not better than the trivial answer would look learned."""
    part = class_part(ReportedRun(Path("a"), "detection", metrics=metrics("detection")))
    (table,) = part.tables
    assert table.head == ["class", "AP", "95 % interval", "baseline", "images", "objects"]
    assert table.rows[0] == ["scratch", "40.0", "35.0 to 45.0", "4.2", "9", "30"]
    assert table.bars == [ScoreBar(124.4, 108.9, 140.0, 13.1), ScoreBar(6.2, 1.6, 12.4, 6.2)]
    assert part.sentences == [
        f"The lowest score has {HOSTILE} (12 objects): AP 2.0. More labels help it first.",
        f"Not above the trivial baseline: {HOSTILE}.",
    ]


def test_classes_without_a_score_are_named() -> None:
    """A class that the validation lacks would be called the worst one."""
    scores = metrics("segmentation")
    scores["classes"].append({"name": "rare", "images": 0, "IoU": None, "baseline": None})
    part = class_part(ReportedRun(Path("a"), "segmentation", metrics=scores))
    assert part.tables[0].rows[2][:4] == ["rare", "-", "-", "-"]
    assert part.sentences[-1] == "Without a score, because the images have none of it: rare."


def test_all_numbers_stand_beside_the_baselines() -> None:
    """Scores by size would not be shown."""
    part = all_scores(ReportedRun(Path("a"), "detection", metrics=metrics("detection")))
    assert part.tables[0].rows == [["AP_small", "11.5", "1.5"], ["AP_large", "40.2", "-"]]
    assert part.sentences == ["The baseline: most frequent box."]
    empty = ReportedRun(Path("a"), "detection", metrics={"task": "detection"})
    assert all_scores(empty).left_out and class_part(empty).left_out


def test_confusions_are_shares_of_the_truth() -> None:
    """Rows and columns exchanged would name the wrong class as the one that is missed."""
    arrays = label_arrays(["a"], np.array([[[90, 10], [0, 40]]]), ["x", "y"])
    part, rows = confusion_part(ReportedRun(Path("a"), "segmentation", per_image=arrays))
    assert rows == [("x", [90.0, 10.0]), ("y", [0.0, 100.0])]
    assert part.tables[0].rows == [["x", "y", "10.0"]]


def test_a_matrix_that_fits_no_page_is_left_out() -> None:
    """A table of 150 columns would stand on the page."""
    matrix = np.eye(30, dtype=int)[None] * 7
    matrix[0, 3, 4] = 3
    arrays = label_arrays(["a"], matrix, [f"c{number}" for number in range(30)])
    part, rows = confusion_part(ReportedRun(Path("a"), "segmentation", per_image=arrays))
    assert rows == [] and "30 classes" in part.left_out[0]
    assert part.tables[0].rows == [["c3", "c4", "30.0"]]
    part, rows = confusion_part(ReportedRun(Path("a"), "detection"))
    assert rows == [] and part.left_out == ["The confusion matrix is left out: there is no per_image.npz."]
