"""Tables of scores: the baseline in every row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from mst_toolkit.reporting.random_start import random_start_of
from mst_toolkit.reporting.reported_run import ReportedRun, read_run
from mst_toolkit.reporting.score_tables import all_scores, class_part, confusion_part, start_part
from mst_toolkit.reporting.shown import ScoreBar
from tests.mst_toolkit.reporting.example_runs import HOSTILE, metrics
from tests.mst_toolkit.reporting.example_scores import detection_arrays, label_arrays, save_arrays


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
    assert part.sentences == ["The largest confusion: 10 % of the labelled x is taken for y."]


def test_a_detectors_errors_stand_in_words_with_the_background() -> None:
    """Missed objects and false alarms, the most frequent errors of a detector, would not be told apart."""
    arrays = detection_arrays(["a"], [1], [0]) | {"confusion": np.array([[6, 1, 3], [0, 8, 2], [4, 1, 0]])}
    part, rows = confusion_part(ReportedRun(Path("a"), "detection", per_image=arrays))
    assert rows == [
        ("scratch", [60.0, 10.0, 30.0]),
        (HOSTILE, [0.0, 80.0, 20.0]),
        ("background", [80.0, 20.0, 0.0]),
    ]
    told = " ".join(part.sentences)
    assert (
        "of 20 objects 14 are found with their class, 1 are found with another class, and 5 are missed"
        in told
    )
    assert "5 detections lie where no object is labelled, 4 of them scratch" in told
    assert "missed most is scratch: 30 % of its objects" in told


def test_the_random_start_has_a_column_where_it_was_measured(tmp_path: Path) -> None:
    """What the pretrained start is worth would not be on the page; or a training of other labels be taken for it."""
    found = {}
    for name, kind, shift, train in (
        ("dino", "row", 0, 20),
        ("random", "random", 10, 20),
        ("more", "random", 1, 50),
    ):
        folder = tmp_path / f"20_labels/{name}/seed0"
        folder.mkdir(parents=True)
        steps = [{"key": "steps", "value": 30, "why": ""}]
        data = {"root": "photos", "train": train}
        plan = {
            "task": "segmentation",
            "start": {"kind": kind, "given": name},
            "data": data,
            "decisions": steps,
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        scores = metrics("segmentation") | {"data": "ef"}
        value = 100 * (40 - shift) / (60 + shift)
        scores["main"] |= {"value": value}
        for row in scores["classes"]:
            row["IoU"] = value
        (folder / "metrics.json").write_text(json.dumps(scores))
        matrix = np.array([[[40 - shift, 10 + shift], [10, 40]]] * 3)
        save_arrays(folder / "per_image.npz", label_arrays(["a", "b", "c"], matrix, ["background", HOSTILE]))
        found[name] = folder
    run = read_run(found["dino"])
    start = random_start_of(run)
    assert start is not None and start.folder == found["random"]
    (table,) = class_part(run, start).tables
    place = table.head.index("random start")
    assert [row[place] for row in table.rows] == ["42.9"] * 2 and table.rows[0][1] == "66.7"
    assert all_scores(run, start).tables[0].head[-1] == "random start"
    told = start_part(run, start).sentences
    assert "(random/seed0) has IoU 42.9; this run has 66.7" in told[0]
    assert "Difference +" in told[1] and "better" in told[1]
    assert random_start_of(read_run(found["random"])) is None
    shutil.rmtree(found["random"])
    assert random_start_of(run) is None
    assert "mst compare photos --starts random dino" in start_part(run, None).sentences[0]


def test_a_matrix_that_fits_no_page_is_left_out() -> None:
    """A table of 150 columns would stand on the page."""
    matrix = np.eye(30, dtype=int)[None] * 7
    matrix[0, 3, 4] = 3
    arrays = label_arrays(["a"], matrix, [f"c{number}" for number in range(30)])
    part, rows = confusion_part(ReportedRun(Path("a"), "segmentation", per_image=arrays))
    assert rows == [] and "30 classes" in part.left_out[0]
    assert part.tables[0].rows == [["c3", "c4", "30.0"]]
    part, rows = confusion_part(ReportedRun(Path("a"), "detection"))
    assert rows == [] and part.left_out == [
        "The confusion matrix is left out: there is no per_image.npz. mst evaluate writes it."
    ]
