"""Several runs beside each other."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.reporting import side_by_side, write_report
from mst_toolkit.reporting.reported_run import ReportedRun, read_run
from tests.mst_toolkit.reporting.example_runs import history, metrics, plan, write_run
from tests.mst_toolkit.reporting.example_scores import detection_arrays, save_arrays


def run_of(
    folder: Path, value: float = 34.2, right: int = 1, record: dict[str, Any] | None = None, **more: Any
) -> ReportedRun:
    """A scored run of six images, with this many right detections each."""
    scores = metrics("detection", value, value - 3, value + 3, **more)
    write_run(folder, "", history(), plan=plan("detection"), metrics=scores, run=record or {})
    names = [f"{number}.png" for number in range(6)]
    save_arrays(folder / "per_image.npz", detection_arrays(names, [right] * 6, [0, 1, 0, 1, 0, 1]))
    return read_run(folder)


def test_runs_of_two_tasks_are_refused(tmp_path: Path) -> None:
    """An AP would be compared with a loss."""
    one = run_of(tmp_path / "a")
    write_run(tmp_path / "b", plan=plan("pretrain"))
    with pytest.raises(UserError, match=r"a is a detection and .*b a pretrain: they have no score in common"):
        side_by_side.check_comparable([one, read_run(tmp_path / "b")])
    with pytest.raises(UserError, match="is given twice"):
        side_by_side.check_comparable([one, read_run(tmp_path / "a")])


def test_names_tell_runs_apart() -> None:
    """Two runs called ``seed_1`` would be one column."""
    runs = [ReportedRun(Path(f"/r/{start}/seed_1"), "detection") for start in ("dino", "mst")]
    assert side_by_side.run_names(runs) == ["dino/seed_1", "mst/seed_1"]
    assert side_by_side.run_names([runs[0], ReportedRun(Path("/r/x"), "detection")]) == ["seed_1", "x"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"difference": 2.04, "low": 0.5, "high": 3.5}, "better"),
        ({"difference": -2.0, "low": -3.0, "high": -0.5}, "worse"),
        ({"difference": 1.0, "low": -0.5, "high": 2.5}, "not told apart"),
    ],
)
def test_differences_are_paired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, float], said: str
) -> None:
    """Overlapping intervals of two runs would be read as no difference; the sign would be turned round."""
    asked = []
    module = ModuleType("mst_toolkit.intervals")
    module.paired = lambda first, second: asked.append((first, second)) or found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mst_toolkit.intervals", module)
    monkeypatch.setattr(importlib.import_module("mst_toolkit"), "intervals", module, raising=False)
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", 36.2)]
    part = side_by_side.score_part(runs, ["a", "b"])
    assert asked == [(tmp_path / "a/per_image.npz", tmp_path / "b/per_image.npz")]
    first, second = part.tables[0].rows
    assert first == ["a", "34.2", "31.2 to 37.2", "-", "-", "3.1", "runs/photos", "3", "400"]
    difference, interval = f"{found['difference']:+.1f}", f"{found['low']:+.1f} to {found['high']:+.1f}"
    assert second[3:5] == [difference, interval]
    assert part.sentences == [f"b against a: {difference} (95 % interval {interval}), {said}."]


def test_a_run_without_a_score_is_named(tmp_path: Path) -> None:
    """It would look as if it had been compared."""
    write_run(tmp_path / "b", "", history(), plan=plan("detection"))
    part = side_by_side.score_part([run_of(tmp_path / "a"), read_run(tmp_path / "b")], ["a", "b"])
    assert part.left_out == [
        "The paired interval of b is left out: a per_image.npz is missing.",
        "Without a score, because nothing evaluated them: b.",
    ]


def test_what_makes_a_comparison_unfair_is_said(tmp_path: Path) -> None:
    """A difference of data would be taken for one of the start."""
    one, other = ({"config_sha256": digest * 64, "data": {"train": {"sha256": "1" * 64}}} for digest in "ab")
    same = [run_of(tmp_path / name, record=one) for name in ("a", "b")]
    assert side_by_side.warnings(same, ["a", "b"]) == []
    odd = run_of(tmp_path / "c", record=other, data="9" * 64)
    assert side_by_side.warnings([same[0], odd], ["a", "c"]) == [
        "The runs were scored on different data (a: efefefefefef; c: 999999999999).",
        "The runs have different configs (a: aaaaaaaaaaaa; c: bbbbbbbbbbbb).",
    ]


def test_only_decisions_that_differ_are_shown(tmp_path: Path) -> None:
    """The one that matters would drown in those that are equal."""
    runs = [run_of(tmp_path / name) for name in ("a", "b")]
    assert side_by_side.decision_part(runs, ["a", "b"]).tables == []
    runs[1].plan["decisions"] = [{"key": "batch size", "value": 16}, {"key": "steps", "value": 12_000}]
    assert side_by_side.decision_part(runs, ["a", "b"]).tables[0].rows == [["steps", "-", "12,000"]]


def test_classes_stand_beside_each_other(tmp_path: Path) -> None:
    """The score of one class would stand in the row of another."""
    runs = [run_of(tmp_path / name) for name in ("a", "b")]
    runs[1].metrics["classes"] = [{**runs[1].metrics["classes"][1], "AP": 5.0}]
    rows = side_by_side.class_table(runs, ["a", "b"]).tables[0].rows
    assert [row[1:] for row in rows] == [["40.0", "-", "4.2"], ["2.0", "5.0", "2.0"]]


def test_the_images_shown_are_those_where_runs_differ(tmp_path: Path) -> None:
    """Six pictures that are equal in both runs would show nothing."""
    runs = [run_of(tmp_path / name, right=2) for name in ("a", "b")]
    wrong = detection_arrays([f"{number}.png" for number in range(6)], [2, 2, 2, 0, 2, 1], [0, 1, 0, 1, 0, 1])
    runs[1].per_image.update({name: np.asarray(value) for name, value in wrong.items()})
    paths = [Path(f"/d/{number}.png") for number in reversed(range(6))]
    assert side_by_side._telling(runs, paths, side_by_side.PagePart())[:2] == [2, 0]


def test_the_page_of_two_runs(tmp_path: Path) -> None:
    """The command would end in a traceback where pictures cannot be made."""
    for name in ("a", "b"):
        run_of(tmp_path / name)
    path = write_report([tmp_path / "a", tmp_path / "b"])
    assert path == tmp_path / "report.html"
    text = path.read_text()
    assert "2 runs side by side" in text and "no run has checkpoints/best.pth or last.pth" in text
    assert text.count("<svg") == 1
