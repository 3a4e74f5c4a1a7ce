"""How a training went, in words: whether it finished, diverged, collapsed, waited, and whether longer would help."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from mst_pretrain.runtime.errors import UserError

from .reported_run import ReportedRun, number

LEAST = 20  # recorded lines below which nothing is said of a trend
STILL_FALLING = 0.03  # share of the whole fall that the last tenth must add
JUMP = 2.0  # times the median of the lines around it
WAITING = 0.1  # share of the time spent waiting for images
ALIKE = 0.2  # of the spread of random directions; below it features are called similar
CLOSE = 0.5  # per cent of score that is not called a change
RANK = "rankme"  # in a pretraining's validations: a number of directions, not a score in per cent
FALLEN = 0.5  # of the largest; below it features are said to have lost directions


@dataclass(frozen=True)
class HealthSign:
    """One finding.

    Attributes:
        level: ``ok``, ``note`` or ``warn``.
        text: What was seen.
        advice: What to do, or an empty text.
    """

    level: str
    text: str
    advice: str = ""


def health(run: ReportedRun) -> list[HealthSign]:
    """All findings of a run, warnings first."""
    if not run.training:
        return [HealthSign("note", "No training was recorded: metrics.jsonl has no line of it.")]
    found = [_finished(run), *_finite(run), *_images(run), *_waiting(run), *_trend(run), *_scores(run)]
    found += _jumps(run)
    if run.task == "pretrain":
        found += [*_rank(run), *_collapse(run)]
    return sorted(found, key=lambda sign: ("warn", "note", "ok").index(sign.level))


def series(lines: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and finite values of one key."""
    pairs = [(line["step"], value) for line in lines if (value := number(line.get(key))) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def main_score(run: ReportedRun) -> str | None:
    """The key of the score that validations are judged by: the evaluation's main one, else theirs, else the first."""
    keys = [key for line in run.validations for key in line if key not in ("step", "total", "epoch", "time")]
    keys = [key for key in dict.fromkeys(keys) if key != RANK and series(run.validations, key)[1]]
    names = [
        (run.metrics.get("main") or {}).get("name"),
        *(line.get("main") for line in run.validations[-1:]),
    ]
    return next((name for name in [*names, *keys] if name in keys), None)


def _finished(run: ReportedRun) -> HealthSign:
    done, total = run.steps
    if total is None:
        return HealthSign("note", f"{done:,} steps are recorded; how many were planned is not.")
    if done >= total:
        return HealthSign("ok", f"All {total:,} steps were made.")
    steps = [line["step"] for line in run.training[-2:]]
    if total - done < steps[-1] - steps[0]:
        text = f"The record ends at step {done:,} of {total:,}, less than one interval of it before the end."
        return HealthSign("ok", text)
    share = f"{100 * done / total:.0f} %"
    return HealthSign(
        "warn",
        f"The record ends at step {done:,} of {total:,} ({share}).",
        "Continue it with --resume before judging it.",
    )


def _finite(run: ReportedRun) -> list[HealthSign]:
    losses = [line.get("loss") for line in run.training if "loss" in line]
    broken = sum(number(loss) is None for loss in losses)  # JSON has null for them
    found = [HealthSign("ok", f"All {len(losses):,} recorded losses are finite.")]
    if broken:
        text = f"{broken:,} of {len(losses):,} recorded losses are not finite."
        found = [HealthSign("warn", text, "Lower the learning rate.")]
    listing = run.folder / "skipped_steps.jsonl"
    skipped = len(listing.read_text(errors="replace").splitlines()) if listing.is_file() else 0
    if skipped:
        advice = f"{listing.name} names their images."
        found.append(HealthSign("note", f"{skipped:,} steps were skipped: a value was not finite.", advice))
    return found


def _images(run: ReportedRun) -> list[HealthSign]:
    listing = run.folder / "bad_images.txt"
    if not listing.is_file():
        return []
    count = len(listing.read_text(errors="replace").splitlines())
    return [HealthSign("note", f"{count:,} images could not be used.", f"{listing.name} says which and why.")]


def _waiting(run: ReportedRun) -> list[HealthSign]:
    shares = series(run.training, "data_share")[1][1:]  # the first line holds the start of the workers
    if not shares:
        return []
    share = fmean(shares)
    text = f"{100 * share:.0f} % of the time was spent waiting for images."
    if share > WAITING:
        return [HealthSign("warn", text, "Raise --workers, or copy the data to a local disk.")]
    return [HealthSign("ok", text)]


def _trend(run: ReportedRun) -> list[HealthSign]:
    """Whether the loss still fell in its last tenth. A pretraining's is judged by the restoration alone.

    The other part of that loss compares with a teacher that moves, so its height says nothing of progress.
    """
    key, name = ("loss_rec", "restoration loss") if run.task == "pretrain" else ("loss", "loss")
    _, values = series(run.training, key)
    if len(values) < LEAST:
        return []
    tenth = len(values) // 10
    first, before, last = values[:tenth], values[-2 * tenth : -tenth], values[-tenth:]
    fall = fmean(first) - fmean(last)
    if fall <= 0:
        text = f"The {name} did not fall: {fmean(first):.3g} at the start, {fmean(last):.3g} at the end."
        return [HealthSign("warn", text, "Look at the learning rate and at the labels.")]
    share = (fmean(before) - fmean(last)) / fall
    told = f"from {fmean(first):.3g} to {fmean(last):.3g}"
    if share > STILL_FALLING:
        text = f"The {name} fell {told}, {100 * share:.0f} % of it in the last tenth: it was still falling."
        return [HealthSign("note", text, "A longer training may help.")]
    return [HealthSign("ok", f"The {name} fell {told} and was flat in its last tenth.")]


def _scores(run: ReportedRun) -> list[HealthSign]:
    key = main_score(run)
    if key is None:
        return []
    steps, values = series(run.validations, key)
    place = max(range(len(values)), key=values.__getitem__)
    told = f"{key} {values[place]:.1f} at step {steps[place]:,}"
    if len(values) == 1:
        return [HealthSign("note", f"There was one validation: {told}.")]
    if place == len(values) - 1 and values[place] - values[place - 1] > CLOSE:
        text = f"The last validation was the best ({told}), and the score was still rising."
        return [HealthSign("note", text, "A longer training may help.")]
    if values[place] - values[-1] > 2 * CLOSE and place < 0.6 * len(values):
        text = f"The best validation came early ({told}); the last one has {values[-1]:.1f}."
        return [HealthSign("note", text, "A shorter training or a lower learning rate would do.")]
    return [HealthSign("ok", f"The best validation has {told}; the last one {values[-1]:.1f}.")]


def _rank(run: ReportedRun) -> list[HealthSign]:
    """Whether the features lost directions that they had."""
    steps, values = series(run.validations, RANK)
    if not values:
        return []
    place = max(range(len(values)), key=values.__getitem__)
    largest = f"{values[place]:.1f} at step {steps[place]:,}"
    if values[-1] < FALLEN * values[place]:
        text = f"RankMe, the number of directions that the features use, fell from {largest} to {values[-1]:.1f}."
        advice = "That alone is no collapse: on simple images it falls while the features become better. Look at k-NN."
        return [HealthSign("note", text, advice)]
    text = f"RankMe, the number of directions that the features use: {values[-1]:.1f} at the end, at most {largest}."
    return [HealthSign("ok", text)]


def _jumps(run: ReportedRun) -> list[HealthSign]:
    steps, values = series(run.training, "loss")
    start = len(values) // 10
    jumps = [
        steps[place]
        for place in range(max(start, 5), len(values))
        if values[place] > JUMP * median(values[place - 5 : place]) > 0
    ]
    if not jumps:
        return []
    text = f"The loss jumped to more than twice its level {len(jumps)} times, first at step {jumps[0]:,}."
    return [HealthSign("note", text, "If this repeats, lower the learning rate.")]


def _collapse(run: ReportedRun) -> list[HealthSign]:
    """The thresholds of the training's own watch, on the mean of the last tenth of the lines."""
    from mst_pretrain.training.health import WATCHED, signs_of_collapse

    last = run.training[-max(1, len(run.training) // 10) :]
    means = {key: fmean(values) for key in WATCHED if (values := series(last, key)[1])}
    if set(means) != set(WATCHED):
        absent = ", ".join(key for key in WATCHED if key not in means)
        return [HealthSign("note", f"Collapse cannot be judged: {absent} were not recorded.")]
    try:
        model = run.settings.model
        prototypes = int((model.get("head") or {}).get("prototypes", 65536))
        width = _width(model.backbone)
    except (UserError, AttributeError) as error:
        return [HealthSign("note", f"Collapse cannot be judged without the config ({error}).")]
    signs = signs_of_collapse(means, prototypes, width, model.get("lambda_ce", 1.0))
    if signs:
        return [HealthSign("warn", f"The features look collapsed: {sign}.") for sign in signs]
    spread = means["feature_std"] * width**0.5
    if spread < ALIKE:
        text = f"All images have similar features: their spread is {100 * spread:.0f} % of that of random directions."
        return [HealthSign("note", text, "Look at the nearest neighbours."), *_hidden(last)]
    text = (
        f"No sign of collapse: teacher entropy {means['teacher_entropy']:.2f} of at most {math.log(prototypes):.2f}, "
        f"spread of the features {means['feature_std']:.4f} (random directions: {width**-0.5:.4f})."
    )
    return [HealthSign("ok", text), *_hidden(last)]


def _hidden(lines: Sequence[dict[str, Any]]) -> list[HealthSign]:
    masked = series(lines, "masked_tokens")[1]
    if not masked:
        return []
    parts = [series(lines, key)[1] for key in ("attention_masked", "attention_visible")]
    text = f"{fmean(masked):.1f} patches of a view were hidden on average"
    if all(parts) and fmean(parts[1]) > 0:
        ratio = fmean(parts[0]) / fmean(parts[1])
        text += f"; the teacher attended to them {ratio:.2f} times as much as to the visible ones"
    return [HealthSign("ok", f"{text}.")]


def _width(backbone: Any) -> int:
    """D of the global feature, from the network built without memory."""
    import torch

    from mst_pretrain.method.backbones import build_trunk

    with torch.device("meta"):
        return int(build_trunk(**dict(backbone)).num_features)
