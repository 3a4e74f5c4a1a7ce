"""The first sentence of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from mst_toolkit.reporting.health_words import HealthSign
from mst_toolkit.reporting.reported_run import ReportedRun
from mst_toolkit.reporting.verdict_words import verdict
from tests.mst_toolkit.reporting.example_runs import history, metrics


def test_number_interval_and_baseline_stand_in_one_sentence() -> None:
    """A number alone would be taken for a good one."""
    found = verdict(ReportedRun(Path("a"), "detection", metrics=metrics("detection")), [])
    assert found.sentence == (
        "AP is 34.2 on 9 images (95 % interval 31.0 to 37.1); the trivial baseline (most frequent box) has 3.1."
    )
    assert found.level == "ok" and "above the baseline" in found.advice


@pytest.mark.parametrize(
    ("low", "high", "level", "said"),
    [
        (3.2, 9.0, "ok", "lies above"),
        (3.1, 9.0, "warn", "contains the baseline"),
        (2.0, 4.0, "warn", "contains the baseline"),
        (1.0, 2.9, "warn", "lies below"),
        (None, None, "note", "Without an interval"),
    ],
)
def test_the_interval_decides(low: float | None, high: float | None, level: str, said: str) -> None:
    """A model that learned nothing would be kept, or a good one thrown away; the baseline of the example is 3.1."""
    scores = metrics("detection")
    scores["main"] |= {"low": low, "high": high}
    found = verdict(ReportedRun(Path("a"), "detection", metrics=scores), [])
    assert found.level == level and said in found.advice


def test_a_missing_baseline_is_said() -> None:
    """The number would seem to have been compared."""
    scores = metrics("segmentation")
    scores["main"]["baseline"] = None
    found = verdict(ReportedRun(Path("a"), "segmentation", metrics=scores), [])
    assert found.level == "note" and found.sentence.endswith("; no trivial baseline was measured.")


def test_an_unscored_run_says_so() -> None:
    """A loss would be read as a score."""
    run = ReportedRun(Path("a"), "pretrain", training=history())
    assert verdict(run, []).sentence == (
        "The pretraining made 400 of 400 steps, last loss 1.01; no score has been measured, so there is no number to "
        "judge."
    )
    assert (
        verdict(run, [HealthSign("warn", "It collapsed.", "Start again.")]).advice
        == "It collapsed. Start again."
    )


def test_a_warning_of_the_training_weakens_a_good_score() -> None:
    """A run that ended early would be green."""
    run = ReportedRun(Path("a"), "detection", metrics=metrics("detection"))
    found = verdict(run, [HealthSign("warn", "The record ends early.", "Continue.")])
    assert found.level == "note" and found.advice.endswith("But the record ends early. Continue.")
