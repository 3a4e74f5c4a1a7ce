"""Several runs beside each other: scores, paired differences, and whatever makes the comparison an unfair one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mst_pretrain.runtime.errors import UserError

from .image_ranks import image_scores, match_paths, spread
from .reported_run import ReportedRun, number
from .score_tables import METRICS
from .shown import NONE, PagePart, PageTable, PictureRow, Shown, interval, plain, shown_number, without

PICTURES = 6
SHOWN_RUNS = 4  # beside the truth
DIGITS = 12  # of a digest


def check_comparable(runs: Sequence[ReportedRun]) -> None:
    """Runs of different tasks have no common score.

    Raises:
        UserError: They are of different tasks, or one is given twice.
    """
    tasks = {run.task: run for run in runs}
    if len(tasks) > 1:
        (one, first), (other, second), *_ = tasks.items()
        raise UserError(
            f"{first.folder} is a {one} and {second.folder} a {other}: they have no score in common. Give runs of one "
            "task."
        )
    folders = [run.folder.resolve() for run in runs]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice. Give every run once.")


def run_names(runs: Sequence[ReportedRun]) -> list[str]:
    """The folders' names, with as many folders above them as tell them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run.folder) for run in runs]


def score_part(runs: Sequence[ReportedRun], names: Sequence[str]) -> PagePart:
    """Main score, interval, baseline, and the paired difference to the first run."""
    part = PagePart()
    metric = next((run.metrics["main"].get("name") for run in runs if run.metrics.get("main")), "score")
    head = ["run", f"{metric}, %", "95 % interval", f"difference to {names[0]}", "its 95 % interval"]
    head += ["baseline", "start", "seed", "steps"]
    rows = []
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        main = run.metrics.get("main") or {}
        difference, its_interval = (NONE, NONE) if place == 0 else _paired(runs[0], run, part, name, names[0])
        rows.append(
            [
                *(name, shown_number(main.get("value")), interval(main), difference, its_interval),
                *(shown_number(main.get("baseline")), start_of(run)),
                *(plain(run.plan.get("seed", run.record.get("seed"))), f"{run.steps[0]:,}"),
            ]
        )
    part.tables.append(PageTable(head, rows))
    unscored = [name for run, name in zip(runs, names, strict=True) if not (run.metrics.get("main") or {})]
    if unscored:
        part.left_out.append(f"Without a score, because nothing evaluated them: {', '.join(unscored)}.")
    return part


def _paired(
    first: ReportedRun, other: ReportedRun, part: PagePart, name: str, against: str
) -> tuple[str, str]:
    """Difference and interval as texts; what they say stands in the part."""
    if not first.per_image or not other.per_image:
        part.left_out.append(f"The paired interval of {name} is left out: a per_image.npz is missing.")
        return NONE, NONE
    with without(part, f"The paired interval of {name} is"):
        from ..intervals import paired

        found = paired(first.folder / "per_image.npz", other.folder / "per_image.npz")
        low, high = found["low"], found["high"]
        if low is None or high is None:
            raise UserError("no class has an object in both")
        said = "better" if low > 0 else "worse" if high < 0 else "not told apart"
        told = f"{found['difference']:+.1f} (95 % interval {low:+.1f} to {high:+.1f})"
        part.sentences.append(f"{name} against {against}: {told}, {said}.")
        return f"{found['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}"
    return NONE, NONE


def start_of(run: ReportedRun) -> str:
    """What a run started from, as short as the plan or the record say it."""
    start = run.plan.get("start") or {}
    return plain(start.get("given") or start.get("kind") or run.record.get("init"))


def warnings(runs: Sequence[ReportedRun], names: Sequence[str]) -> list[str]:
    """Where the runs differ in what should be equal: data, config, length, seed."""
    told = [
        ("were scored on different data", [_digest(run.metrics.get("data")) for run in runs]),
        (
            "were trained on different data",
            [_digest((run.record.get("data") or {}).get("train")) for run in runs],
        ),
        ("have different configs", [_digest(run.record.get("config_sha256")) for run in runs]),
        ("have different classes", [plain((run.plan.get("data") or {}).get("classes")) for run in runs]),
        ("were trained for different numbers of steps", [f"{run.steps[0]:,}" for run in runs]),
    ]
    found = []
    for what, values in told:
        if len(set(values)) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
            found.append(f"The runs {what} ({listed}).")
    return found


def decision_part(runs: Sequence[ReportedRun], names: Sequence[str]) -> PagePart:
    """The decisions of the plans that are not the same."""
    part = PagePart("Decisions that differ")
    plans = [{str(one.get("key")): plain(one.get("value")) for one in _decisions(run)} for run in runs]
    keys = dict.fromkeys(key for plan in plans for key in plan)
    rows = [[key, *(plan.get(key, NONE) for plan in plans)] for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not any(plans):
        part.left_out.append("Decisions are left out: no run has a plan.json with them.")
    elif not rows:
        part.sentences.append("There is none: all decisions of the plans are the same.")
    else:
        part.tables.append(PageTable(["decision", *names], rows, texts=len(names) + 1))
    return part


def class_table(runs: Sequence[ReportedRun], names: Sequence[str]) -> PagePart:
    """The main score of every class in every run, and the baseline's."""
    part = PagePart("Per class")
    tables = [{str(row.get("name")): row for row in run.metrics.get("classes") or ()} for run in runs]
    classes = list(dict.fromkeys(name for table in tables for name in table))
    entries = [row for table in tables for row in table.values()]
    metric = next((key for key in METRICS if any(number(row.get(key)) is not None for row in entries)), None)
    if metric is None:
        part.left_out.append("Scores per class are left out: no metrics.json has them.")
        return part
    rows = [
        [
            name,
            *(shown_number(table.get(name, {}).get(metric)) for table in tables),
            shown_number(next((table[name].get("baseline") for table in tables if name in table), None)),
        ]
        for name in classes
    ]
    part.tables.append(PageTable([f"{metric}, %", *names, "baseline"], rows))
    return part


def picture_part(runs: Sequence[ReportedRun], names: Sequence[str]) -> PagePart:
    """The same validation images: truth, and what each of the first runs predicts."""
    part = PagePart("Truth beside the predictions")
    if runs[0].task == "pretrain":
        return part
    shown = [
        (run, name, run.checkpoint)
        for run, name in zip(runs, names, strict=True)
        if run.checkpoint is not None
    ][:SHOWN_RUNS]
    with without(part, "Pictures of the predictions are"):
        if not shown:
            raise UserError("no run has checkpoints/best.pth or last.pth")
        from mst_transfer.prediction import Predictor

        from .labelled import LabelledSet, draw, draw_truth

        data = LabelledSet(runs[0].settings, "test_dataloader")
        images = [data[place] for place in _telling([run for run, *_ in shown], data.paths(), part)]
        part.colors = data.legend()
        rows = [[Shown(draw_truth(one, data.colors), "truth")] for one in images]
        for run, name, checkpoint in shown:
            predictor = Predictor(run.settings, checkpoint)
            for row, one in zip(rows, images, strict=True):
                row.append(Shown(draw(one.pixels, predictor(one.path), data.colors), name))
        part.rows += [PictureRow(row, one.path.name) for row, one in zip(rows, images, strict=True)]
        if len(shown) < len(runs):
            part.left_out.append(f"Pictures are of the first {len(shown)} runs that have a checkpoint.")
    return part


def _telling(runs: Sequence[ReportedRun], paths: list[Path], part: PagePart) -> list[int]:
    """Places of the images on which the runs differ most; without their scores, spread over the data."""
    names = [[str(name) for name in run.per_image.get("images", ())] for run in runs]
    if len(runs) > 1 and names[0] and all(one == names[0] for one in names):
        scores = np.stack([image_scores(run.per_image) for run in runs])
        span = np.nan_to_num(scores.max(0) - scores.min(0), nan=-1.0)
        match = match_paths(names[0], paths)
        order = [match[place] for place in np.argsort(-span, kind="stable").tolist() if place in match]
        if order:
            part.sentences.append("The images on which the runs differ most.")
            return order[:PICTURES]
    return spread(len(paths), PICTURES)


def _decisions(run: ReportedRun) -> Iterable[dict[str, Any]]:
    return [one for one in run.plan.get("decisions") or () if isinstance(one, dict)]


def _digest(value: Any) -> str:
    """What a metrics or a record file says of data or a config, short."""
    if isinstance(value, dict):
        value = value.get("sha256")
    return "not recorded" if not value else str(value)[:DIGITS]
