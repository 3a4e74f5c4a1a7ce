"""The verdict: one sentence with the main number, its interval, and the trivial baseline beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .health_words import HealthSign, series
from .reported_run import ReportedRun, number

NAMES = {"pretrain": "pretraining", "detection": "detection", "segmentation": "segmentation"}


@dataclass(frozen=True)
class RunVerdict:
    """What is to be thought of a run.

    Attributes:
        level: ``ok``, ``note`` or ``warn``.
        sentence: With the number, its interval and the baseline.
        advice: What follows from it.
    """

    level: str
    sentence: str
    advice: str


def verdict(run: ReportedRun, signs: Sequence[HealthSign]) -> RunVerdict:
    """Whether a run is worth keeping, from its evaluation, and from how it went."""
    warnings = [sign for sign in signs if sign.level == "warn"]
    main = run.metrics.get("main") or {}
    if number(main.get("value")) is None:
        return _unscored(run, warnings)
    level, sentence, advice = _scored(run, main)
    if warnings and level == "ok":
        level, advice = "note", f"{advice} But {_first_lower(warnings[0].text)} {warnings[0].advice}".strip()
    return RunVerdict(level, sentence, advice)


def _scored(run: ReportedRun, main: dict[str, Any]) -> tuple[str, str, str]:
    value, low, high, baseline = (number(main.get(key)) for key in ("value", "low", "high", "baseline"))
    name = main.get("name", "The score")
    images = run.metrics.get("images")
    on = f" on {images:,} images" if isinstance(images, int) else ""
    told = f"{name} is {value:.1f}{on}"
    told += (
        " (no interval was computed)"
        if low is None or high is None
        else (f" (95 % interval {low:.1f} to {high:.1f})")
    )
    if baseline is None:
        return "note", f"{told}; no trivial baseline was measured.", "Without one the number says little."
    kind = (run.metrics.get("baseline") or {}).get("name", "the trivial baseline")
    told += f"; the trivial baseline ({kind}) has {baseline:.1f}."
    if low is None or high is None:
        return "note", told, "Without an interval, small differences mean nothing."
    if low > baseline:
        return "ok", told, "The whole interval lies above the baseline: the model has learned more than that."
    if high < baseline:
        return "warn", told, "The whole interval lies below the baseline: do not use this model."
    return (
        "warn",
        told,
        "The interval contains the baseline: nothing shows that the model learned more than that.",
    )


def _unscored(run: ReportedRun, warnings: Sequence[HealthSign]) -> RunVerdict:
    done, total = run.steps
    steps = f"{done:,} of {total:,} steps" if total else f"{done:,} steps"
    losses = series(run.training, "loss")[1]
    loss = f", last loss {losses[-1]:.3g}" if losses else ""
    sentence = f"The {NAMES[run.task]} made {steps}{loss}; no score has been measured, so there is no number to judge."
    if run.task == "pretrain" and (measured := series(run.validations, "knn")[1]):
        told = f"k-NN on held-out images has {measured[-1]:.1f} at the end"
        sentence = f"The {NAMES[run.task]} made {steps}{loss}; {told}."
    if warnings:
        return RunVerdict("warn", sentence, f"{warnings[0].text} {warnings[0].advice}".strip())
    if run.task == "pretrain":
        return RunVerdict(
            "note", sentence, "Features are judged by a probe or by a fine-tuning: see the next commands."
        )
    return RunVerdict("note", sentence, "mst evaluate measures it.")


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]
