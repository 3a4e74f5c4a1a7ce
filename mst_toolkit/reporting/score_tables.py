"""Scores of an evaluation as tables: classes, all numbers, confusions; the trivial baseline in every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .image_ranks import confusion
from .reported_run import ReportedRun, number
from .shown import NONE, PagePart, PageTable, ScoreBar, interval, shown_number

METRICS = ("AP", "AP50", "AP75", "IoU", "Acc", "aAcc")
MOST_CLASSES = 24  # of a confusion matrix that is shown whole
BAR = 140  # pixels
PAIRS = 10  # of a longer one


def class_part(run: ReportedRun) -> PagePart:
    """One row per class, the lowest score first named in a sentence."""
    part = PagePart("Per class")
    rows: list[dict[str, Any]] = list(run.metrics.get("classes") or ())
    if not rows:
        part.left_out.append("Scores per class are left out: metrics.json has none.")
        return part
    metrics = [name for name in METRICS if any(number(row.get(name)) is not None for row in rows)]
    counts = [name for name in ("images", "objects", "pixels") if any(name in row for row in rows)]
    head = ["class", *metrics[:1], "95 % interval", "baseline", *metrics[1:], *counts]
    part.tables.append(
        PageTable(
            head,
            [
                [
                    str(row.get("name", NONE)),
                    *(shown_number(row.get(name)) for name in metrics[:1]),
                    interval(row),
                    shown_number(row.get("baseline")),
                    *(shown_number(row.get(name)) for name in [*metrics[1:], *counts]),
                ]
                for row in rows
            ],
            bars=_bars(rows, metrics[0]) if metrics else (),
        )
    )
    if metrics:
        part.sentences += _lowest(rows, metrics[0])
    return part


def _bars(rows: Sequence[dict[str, Any]], metric: str) -> list[ScoreBar | None]:
    """From 0 to the highest end of an interval."""
    keys = (metric, "low", "high", "baseline")
    numbers = [[number(row.get(key)) for key in keys] for row in rows]
    most = max((one for row in numbers for one in row if one is not None), default=0.0) or 1.0
    found: list[ScoreBar | None] = []
    for row in numbers:
        value, *others = (None if one is None else round(BAR * max(one, 0.0) / most, 1) for one in row)
        found.append(None if value is None else ScoreBar(value, *others))
    return found


def _lowest(rows: Sequence[dict[str, Any]], metric: str) -> list[str]:
    scored = [(value, row) for row in rows if (value := number(row.get(metric))) is not None]
    found = []
    if len(scored) > 1:
        value, row = min(scored, key=lambda pair: pair[0])
        count = row.get("objects", row.get("images"))
        of = f" ({count:,} {'objects' if 'objects' in row else 'images'})" if isinstance(count, int) else ""
        found.append(
            f"The lowest score has {row.get('name')}{of}: {metric} {value:.1f}. More labels help it first."
        )
    unbeaten = [
        str(row.get("name"))
        for value, row in scored
        if (baseline := number(row.get("baseline"))) is not None and value <= baseline
    ]
    if unbeaten:
        found.append(f"Not above the trivial baseline: {', '.join(unbeaten)}.")
    unscored = [str(row.get("name")) for row in rows if number(row.get(metric)) is None]
    if unscored:
        found.append(f"Without a score, because the images have none of it: {', '.join(unscored)}.")
    return found


def all_scores(run: ReportedRun) -> PagePart:
    """Every number of the evaluation, sizes of objects among them, beside the baseline's."""
    part = PagePart("All numbers, also by size where it was measured")
    scores = {key: value for key, value in (run.metrics.get("scores") or {}).items() if _is_number(value)}
    baseline = run.metrics.get("baseline") or {}
    if not scores:
        part.left_out.append("Further scores are left out: metrics.json has none.")
        return part
    others = baseline.get("scores") or {}
    if baseline.get("name"):
        part.sentences.append(f"The baseline: {baseline['name']}.")
    rows = [[str(key), shown_number(value), shown_number(others.get(key))] for key, value in scores.items()]
    part.tables.append(PageTable(["score, %", "this run", "baseline"], rows))
    return part


def probe_part(run: ReportedRun) -> PagePart:
    """The main score of every probe of a pretraining."""
    part = PagePart("Probes")
    rows = []
    for kind, found in run.probes.items():
        main = found.get("main") or {}
        name = str(main.get("name", NONE))
        rows.append(
            [kind, name, shown_number(main.get("value")), interval(main), shown_number(main.get("baseline"))]
        )
    if rows:
        part.tables.append(PageTable(["probe", "score", "%", "95 % interval", "baseline"], rows, texts=2))
    return part


def confusion_part(run: ReportedRun) -> tuple[PagePart, list[tuple[str, list[float]]]]:
    """What is taken for what: the matrix in per cent of the truth, and the largest confusions in a table.

    Returns:
        The part, and the matrix's rows with their class; no rows where there are too many classes or no matrix.
    """
    part = PagePart("What is taken for what")
    matrix = confusion(run.per_image) if run.per_image else None
    if matrix is None or not matrix.any():
        why = "per_image.npz has no pairs of classes" if run.per_image else "there is no per_image.npz"
        part.left_out.append(f"The confusion matrix is left out: {why}.")
        return part, []
    names = [str(name) for name in run.per_image["classes"]]
    whole = matrix.sum(1, keepdims=True)
    shares = 100 * np.divide(matrix, whole, out=np.zeros(matrix.shape), where=whole > 0)
    wrong = shares * (1 - np.eye(len(names)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(place), len(names)) for place in order]
    rows = [
        [names[one], names[other], f"{wrong[one, other]:.1f}"]
        for one, other in pairs
        if wrong[one, other] > 0
    ]
    if rows:
        part.tables.append(PageTable(["truth", "taken for", "% of the truth"], rows, texts=2))
    if len(names) > MOST_CLASSES:
        part.left_out.append(f"The whole matrix is left out: {len(names)} classes do not fit a page.")
        return part, []
    return part, [(name, row.tolist()) for name, row in zip(names, shares, strict=True)]


def _is_number(value: Any) -> bool:
    return value is None or number(value) is not None
