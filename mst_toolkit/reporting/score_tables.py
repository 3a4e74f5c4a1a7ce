"""Scores of an evaluation as tables: classes, all numbers, confusions; the trivial baseline in every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .image_ranks import THRESHOLD, confusion
from .random_start import RANDOM, main_of, random_probe
from .reported_run import ReportedRun, number
from .shown import NONE, PagePart, PageTable, ScoreBar, interval, shown_number, without

METRICS = ("AP", "AP50", "AP75", "IoU", "Acc", "aAcc")
MOST_CLASSES = 24  # of a confusion matrix that is shown whole
BAR = 140  # pixels
PAIRS = 10  # of a longer one
NOTHING = "background"  # of a detector: nothing there, or nothing found


def class_part(run: ReportedRun, start: ReportedRun | None = None) -> PagePart:
    """One row per class, the lowest score first named in a sentence.

    Args:
        run: The run.
        start: The same from random weights, for a column of its own.
    """
    part = PagePart("Per class")
    rows: list[dict[str, Any]] = list(run.metrics.get("classes") or ())
    if not rows:
        part.left_out.append("Scores per class are left out: metrics.json has none.")
        return part
    metrics = [name for name in METRICS if any(number(row.get(name)) is not None for row in rows)]
    counts = [name for name in ("images", "objects", "pixels") if any(name in row for row in rows)]
    head = ["class", *metrics[:1], "95 % interval", "baseline", *_column(start), *metrics[1:], *counts]
    random = {str(row.get("name")): row for row in (start.metrics.get("classes") or ())} if start else {}
    part.tables.append(
        PageTable(
            head,
            [
                [
                    str(row.get("name", NONE)),
                    *(shown_number(row.get(name)) for name in metrics[:1]),
                    interval(row),
                    shown_number(row.get("baseline")),
                    *(
                        shown_number(random.get(str(row.get("name")), {}).get(name))
                        for name in metrics[: len(_column(start))]
                    ),
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


def _column(start: ReportedRun | None) -> list[str]:
    """Title of the column of the random start, where there is one."""
    return [] if start is None else ["random start"]


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


def all_scores(run: ReportedRun, start: ReportedRun | None = None) -> PagePart:
    """Every number of the evaluation, sizes of objects among them, beside the baseline's and the random start's."""
    part = PagePart("All numbers, also by size where it was measured")
    scores = {key: value for key, value in (run.metrics.get("scores") or {}).items() if _is_number(value)}
    baseline = run.metrics.get("baseline") or {}
    if not scores:
        part.left_out.append("Further scores are left out: metrics.json has none.")
        return part
    others = baseline.get("scores") or {}
    if baseline.get("name"):
        part.sentences.append(f"The baseline: {baseline['name']}.")
    random = (start.metrics.get("scores") or {}) if start else {}
    rows = [
        [
            str(key),
            shown_number(value),
            shown_number(others.get(key)),
            *(shown_number(random.get(key)) for _ in _column(start)),
        ]
        for key, value in scores.items()
    ]
    part.tables.append(PageTable(["score, %", "this run", "baseline", *_column(start)], rows))
    return part


def start_part(run: ReportedRun, start: ReportedRun | None) -> PagePart:
    """What the start was worth: the difference from the random start with its interval; or how to measure it."""
    part = PagePart("Against a random start")
    if start is None:
        if run.task != "pretrain" and (run.plan.get("start") or {}).get("kind") not in (None, RANDOM):
            data = (run.plan.get("data") or {}).get("root", "DATA")
            part.sentences.append(
                f"No random start was measured on these images. mst compare {data} --starts random "
                f"{run.plan['start'].get('given')} measures it."
            )
        return part
    value, random = main_of(run), main_of(start)
    if value is None or random is None:
        return part
    name = run.metrics["main"].get("name", "The score")
    part.sentences.append(
        f"With random weights at its start the same training ({'/'.join(start.folder.parts[-2:])}) has {name} "
        f"{random:.1f}; this run has {value:.1f}."
    )
    with without(part, "The paired interval is"):
        from ..intervals import paired

        found = paired(start.folder / "per_image.npz", run.folder / "per_image.npz")
        low, high = found["low"], found["high"]
        if low is not None and high is not None:
            said = "better" if low > 0 else "worse" if high < 0 else "not told apart on these images"
            part.sentences.append(
                f"Difference {found['difference']:+.1f} points (95 % interval over images {low:+.1f} to {high:+.1f}): "
                f"{said}. One seed of training each: another seed may differ by more."
            )
    return part


def probe_part(run: ReportedRun) -> PagePart:
    """The main score of every probe of a pretraining."""
    part = PagePart("Probes")
    rows = []
    for kind, found in run.probes.items():
        main = found.get("main") or {}
        name = str(main.get("name", NONE))
        random = random_probe(run, kind)
        rows.append(
            [
                *(kind, name, shown_number(main.get("value")), interval(main)),
                *(shown_number(main.get("baseline")), shown_number(random)),
            ]
        )
    if rows:
        head = ["probe", "score", "%", "95 % interval", "baseline", "random start"]
        part.tables.append(PageTable(head, rows, texts=2))
        if any(row[-1] == NONE for row in rows):
            part.sentences.append("Random weights are measured by: mst probe KIND random DATA")
    return part


def confusion_part(run: ReportedRun) -> tuple[PagePart, list[tuple[str, list[float]]]]:
    """What is taken for what: errors in words, and the matrix in per cent of the truth.

    Returns:
        The part, and the matrix's rows with their class; no rows where there are too many classes or no matrix.
    """
    part = PagePart("What is taken for what")
    matrix = confusion(run.per_image) if run.per_image else None
    if matrix is None or not matrix.any():
        why = "per_image.npz has no pairs of classes" if run.per_image else "there is no per_image.npz"
        part.left_out.append(f"The confusion matrix is left out: {why}. mst evaluate writes it.")
        return part, []
    names = [str(name) for name in run.per_image["classes"]]
    detects = len(matrix) > len(names)
    names += [NOTHING] if detects else []
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
    part.sentences += detection_errors(matrix, names) if detects else label_errors(wrong, names)
    if rows:
        part.tables.append(PageTable(["truth", "taken for", "% of the truth"], rows, texts=2))
    if len(names) > MOST_CLASSES:
        part.left_out.append(f"The whole matrix is left out: {len(names)} classes do not fit a page.")
        return part, []
    return part, [(name, row.tolist()) for name, row in zip(names, shares, strict=True)]


def detection_errors(matrix: np.ndarray, names: Sequence[str]) -> list[str]:
    """The errors of a detector in words.

    Args:
        matrix: [C + 1, C + 1] counts, rows are the truth, the background last.
        names: Of its rows.
    """
    objects, found = matrix[:-1], matrix[:-1, :-1]
    total, missed, false = int(objects.sum()), int(objects[:, -1].sum()), int(matrix[-1].sum())
    right, swapped = int(np.trace(found)), int(found.sum() - np.trace(found))
    told = [
        f"Detections with a score of at least {THRESHOLD}, matched to objects at an IoU of 0.5: of {total:,} objects "
        f"{right:,} are found with their class, {swapped:,} are found with another class, and {missed:,} are missed."
    ]
    if false:
        most = int(matrix[-1, :-1].argmax())
        told.append(
            f"{false:,} detections lie where no object is labelled, {int(matrix[-1, most]):,} of them {names[most]}: "
            "false alarms, or objects that nobody labelled."
        )
    if missed:
        shares = objects[:, -1] / np.maximum(1, objects.sum(1))
        most = int(shares.argmax())
        told.append(
            f"The class that is missed most is {names[most]}: {100 * shares[most]:.0f} % of its objects."
        )
    return told


def label_errors(wrong: np.ndarray, names: Sequence[str]) -> list[str]:
    """The largest confusion of label maps in words, from shares [C, C] of the truth in per cent, the diagonal zero."""
    if not wrong.any():
        return ["No pixel is taken for another class."]
    one, other = divmod(int(wrong.argmax()), len(names))
    return [
        f"The largest confusion: {wrong[one, other]:.0f} % of the labelled {names[one]} is taken for {names[other]}."
    ]


def _is_number(value: Any) -> bool:
    return value is None or number(value) is not None
