"""What is said of a training's health, on written records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mst_toolkit.reporting.health_words import HealthSign, health, main_score
from mst_toolkit.reporting.reported_run import ReportedRun, read_run
from tests.mst_toolkit.reporting.example_runs import PRETRAIN, history, metrics, plan, write_run


def run_of(lines: list[dict[str, Any]], scores: list[float] = [], task: str = "detection") -> ReportedRun:  # noqa: B006
    """A run with these training lines and a validation every 100 steps."""
    evals = [
        {"step": 100 * number, "stage": "eval", "best": True, "AP": score}
        for number, score in enumerate(scores, 1)
    ]
    return ReportedRun(Path("nowhere"), task, training=lines, validations=evals)


def found(run: ReportedRun, text: str) -> HealthSign:
    """The one sign with a text."""
    (sign,) = [sign for sign in health(run) if text in sign.text]
    return sign


def test_a_finished_healthy_run_has_no_warning() -> None:
    """Every report would cry wolf."""
    signs = health(run_of(history(), [10.0, 20.0, 20.2]))
    assert {sign.level for sign in signs} == {"ok"}
    assert signs[0] == HealthSign("ok", "All 400 steps were made.")


def test_a_run_that_ended_early_is_said_to_have() -> None:
    """Half a training would be judged as a whole one."""
    sign = found(run_of(history(100, 400)), "ends at")
    assert (sign.level, sign.text) == ("warn", "The record ends at step 100 of 400 (25 %).")
    assert found(run_of(history(390, 399)), "ends at").level == "ok"  # a line every 10 steps


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_losses_that_are_not_finite_are_counted(value: float | None) -> None:
    """A diverged run would look healthy: the file has null for such a loss."""
    lines = history()
    lines[7]["loss"] = lines[9]["loss"] = value
    sign = found(run_of(lines), "not finite")
    assert (sign.level, sign.text) == ("warn", "2 of 40 recorded losses are not finite.")


def test_waiting_for_images_is_a_share_of_the_time() -> None:
    """Nobody would know why training is slow; the first line, with the start of the workers, does not count."""
    lines = history()
    lines[0]["data_share"] = 0.9
    assert found(run_of(lines), "waiting").text.startswith("2 %")
    for line in lines:
        line["data_share"] = 0.25
    sign = found(run_of(lines), "waiting")
    assert sign.level == "warn" and sign.text.startswith("25 %") and "--workers" in sign.advice


def test_whether_the_loss_still_fell() -> None:
    """The question whether to train longer would get the wrong answer."""
    assert (
        found(run_of(history(loss=lambda x: 2 - x)), "still falling").advice == "A longer training may help."
    )
    assert found(run_of(history()), "flat in its last tenth").level == "ok"
    assert found(run_of(history(loss=lambda x: 1 + x)), "did not fall").level == "warn"


def test_a_pretraining_is_not_judged_by_its_matching_loss() -> None:
    """The loss to a moving teacher rises in good runs; the report would call them failed."""
    lines = [{**line, "loss": 1 + line["step"], "loss_rec": 1 / line["step"]} for line in history()]
    texts = [sign.text for sign in health(run_of(lines, task="pretrain"))]
    assert not any("The loss did not fall" in text for text in texts)
    assert any("restoration loss fell" in text for text in texts)


def test_where_the_best_validation_lies() -> None:
    """Overfitting and a training that was too short would look alike."""
    assert "still rising" in found(run_of(history(), [10.0, 20.0, 30.0]), "AP 30.0 at step 300").text
    early = found(run_of(history(), [10.0, 30.0, 20.0, 15.0, 12.0]), "came early")
    assert "AP 30.0 at step 200" in early.text and "12.0" in early.text
    assert found(run_of(history(), [10.0]), "one validation").level == "note"


def test_jumps_of_the_loss_are_counted() -> None:
    """A learning rate on the edge would not be noticed."""
    lines = history()
    lines[20]["loss"] = 9.0
    assert "1 times, first at step 210" in found(run_of(lines), "jumped").text


def test_collapse_is_judged_by_the_trainings_own_thresholds(tmp_path: Path) -> None:
    """A collapsed pretraining would be exported."""
    healthy = {"loss_ce": 2.0, "teacher_entropy": 1.5, "kl": 0.4, "feature_std": 0.15}
    config = PRETRAIN.replace("@PHOTOS@", str(tmp_path))
    texts = {
        "ok": "No sign of collapse: teacher entropy 1.50 of at most 3.18",
        "note": "spread is 11 % of that of random directions",
        "warn": "all images have one feature",
    }
    for spread, (level, text) in zip((0.15, 0.02, 1e-4), texts.items(), strict=True):
        lines = [{**line, **healthy, "feature_std": spread} for line in history()]
        run = read_run(write_run(tmp_path / level, config, lines, plan=plan("pretrain")))
        assert found(run, text).level == level


def test_counts_of_skipped_steps_and_images(tmp_path: Path) -> None:
    """Images that could not be used would stay unknown."""
    folder = write_run(tmp_path / "a", lines=history(), plan=plan("detection"))
    (folder / "skipped_steps.jsonl").write_text("{}\n{}\n")
    (folder / "bad_images.txt").write_text("a.jpg\ttruncated\n")
    run = read_run(folder)
    assert found(run, "2 steps were skipped").level == "note"
    assert found(run, "1 images could not be used").level == "note"


def test_the_main_score_is_the_evaluations() -> None:
    """The curve would be judged by a score that nobody asked for; the flag ``best`` is not a score."""
    run = run_of(history(), [10.0])
    run.validations[0]["AP50"] = 30.0
    assert main_score(run) == "AP"
    run.metrics.update(metrics("detection"), main={"name": "AP50"})
    assert main_score(run) == "AP50"


def test_features_that_lost_directions_are_named() -> None:
    """A late fall of RankMe would not be told, or told as per cent, or called a collapse, which it alone is not."""
    evals = [
        {"step": 100 * number, "total": 400, "stage": "eval", "rankme": rank}
        for number, rank in enumerate((20.0, 41.5, 12.0), 1)
    ]
    run = ReportedRun(Path("nowhere"), "pretrain", training=history(), validations=evals)
    sign = found(run, "RankMe")
    assert sign.level == "note" and "fell from 41.5 at step 200 to 12.0" in sign.text
    assert "k-NN" in sign.advice and main_score(run) is None
    evals[-1]["rankme"] = 38.0
    assert found(run, "RankMe").level == "ok"
    for line in evals:
        line["knn"] = 30.0
    assert main_score(run) == "knn" and "knn 30.0" in found(run, "validation").text
