"""Does a start help on these data? One recipe from each start, several seeds, and differences with intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mst_pretrain.runtime.errors import UserError

from .intervals import RESAMPLES
from .runs import BEST, CHECKPOINTS, CONFIG, METRICS
from .starts import RANDOM, Start, fetched, find_start
from .training import RUNS, check_gpus, find_data, launch, name_of, start_name, train, write_page

if TYPE_CHECKING:
    from .layouts import Found

REPORT = "report.html"
PER_IMAGE, RESULT, PICTURE = "per_image.npz", "comparison.json", "comparison.png"
SETTINGS = "comparison_settings.json"
SPLIT_SEED = 0  # the validation images are the same in every training


def compare(
    data: str | Path,
    starts: Sequence[str | Path],
    task: str | None,
    seeds: int,
    labels: Sequence[int],
    out: str | Path | None,
    dry_run: bool,
    **asked: Any,
) -> dict[str, Any]:
    """See :func:`mst_toolkit.api.compare`."""
    from . import layouts

    check_gpus(asked["gpus"])
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: give 1 or more.")
    found, _ = find_data(task, data, asked)
    if found.val is None:
        found = layouts.split(found, SPLIT_SEED)
    counts = sorted(labels) or [found.train.count]
    if counts[-1] > found.train.count or counts[0] < 1:
        raise UserError(
            f"--labels {counts[-1]}: there are {found.train.count} training images. Give 1 to as many."
        )
    usable, left_out = usable_starts(starts, asked.get("arch"))
    folder = Path(out) if out else RUNS / f"compare_{name_of(data)}"
    jobs = [(count, seed, start) for count in counts for seed in range(seeds) for start in usable]
    further = [*found.warnings, *(f"left out: {text}" for text in left_out)]
    print(f"Data    {layouts.line(found)}", *(f"        {text}" for text in further), sep="\n")
    print(
        f"Plan    {len(jobs)} trainings: {len(usable)} starts x {seeds} seeds x {len(counts)} sizes, in {folder}"
    )
    if dry_run:
        return {"left_out": left_out, "trainings": len(jobs)}
    keep_settings(folder, {"data": str(Path(data).resolve()), "task": found.task, **asked})
    defaults = dict(hours=None, precision="auto", logger=(), compares=True)
    for number, (count, seed, start) in enumerate(jobs, 1):
        place = run_folder(folder, count, start, seed)
        print(f"\n[{number}/{len(jobs)}] {count} labelled images, {start.given}, seed {seed}", flush=True)
        part = found if count == found.train.count else subset(found, count, seed)
        score(part, start, place, {**asked, **defaults, "seed": seed})
    result = summary(folder, counts, usable, seeds)
    result["left_out"] = left_out
    write(result, folder)
    return result


def usable_starts(given: Sequence[str | Path], arch: str | None) -> tuple[list[Start], list[str]]:
    """The starts whose weights are here or can be fetched, and what is said of the others.

    Raises:
        UserError: Fewer than two can be used, or they are of different architectures.
    """
    own = [find_start(start) for start in given if Path(start).exists()]
    arch = arch or (own[0].model if own else None)
    usable: list[Start] = []
    left_out: list[str] = []
    for text in given:
        try:
            usable.append(
                fetched(find_start(text, None if Path(text).exists() else arch), RUNS / "downloads")
            )
        except UserError as error:
            left_out.append(f"{text}: {error}")
    first = next((start for start in usable if start.kind != RANDOM), None)
    if first is not None:  # random weights in the same architecture, its changed arguments included
        usable = [
            replace(start, model=first.model, model_args=first.model_args) if start.kind == RANDOM else start
            for start in usable
        ]
    if len(usable) < 2:
        raise UserError("A comparison needs two starts that can be used. " + " ".join(left_out))
    different = {str(start.architecture) for start in usable}
    if len(different) > 1:
        raise UserError(
            f"The starts are of different architectures: {', '.join(sorted(different))}. Compare starts of one; --arch "
            "decides that of random, dino and supervised."
        )
    return usable, left_out


def subset(found: Found, count: int, seed: int) -> Found:
    """The same data with ``count`` training images, chosen by the seed; every class is in it where that is possible."""
    from .layouts.splitting import classes_of_images

    held = classes_of_images(found)
    names = sorted(held)
    random.Random(seed).shuffle(names)
    chosen: dict[str, None] = {}
    for label in sorted({label for classes in held.values() for label in classes}, key=str):
        if len(chosen) < count and not any(label in held[name] for name in chosen):
            chosen[next(name for name in names if label in held[name])] = None
    for name in names:
        if len(chosen) < count:
            chosen[name] = None
    return replace(found, train=replace(found.train, names=tuple(sorted(chosen)), count=len(chosen)))


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write what the trainings of a folder have in common, or refuse to mix them with others.

    Raises:
        UserError: The trainings in the folder were made with other settings.
    """
    import json

    from mst_pretrain.runtime.atomic import write_json
    from mst_pretrain.runtime.json_text import read_json

    kept = {key: settings[key] for key in settings if key not in ("gpus", "workers")}
    if not kept.get("skip_broken"):
        kept.pop("skip_broken", None)  # folders of earlier versions do not name it
    now = json.loads(json.dumps(kept))
    path = folder / SETTINGS
    then = read_json(path) if path.is_file() else now
    keys = dict.fromkeys((*now, *then))
    changed = [
        f"{key} was {then.get(key)}, now {now.get(key)}" for key in keys if then.get(key) != now.get(key)
    ]
    if changed:
        raise UserError(
            f"{folder} holds trainings with other settings: {'; '.join(changed)}. Scores of both would stand in one "
            "table. Use the same settings to go on, or --out NEW_FOLDER."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(now, path)


def run_folder(folder: Path, count: int, start: Start, seed: int) -> Path:
    """Of one training."""
    return folder / f"{count}_labels" / start_name(start) / f"seed{seed}"


def score(found: Found, start: Start, folder: Path, asked: dict[str, Any]) -> None:
    """Train and evaluate, or go on where an earlier call was interrupted."""
    from .evaluating import evaluate

    if (folder / METRICS).is_file() and (folder / REPORT).is_file():
        print(f"        done before: {folder}", flush=True)
        return
    if not (folder / CONFIG).is_file():
        train(found, start, folder, asked, finish=False)
    elif not (folder / METRICS).is_file():
        launch(folder, asked["gpus"], resume=True)
    if not (folder / METRICS).is_file():
        evaluate(folder / CONFIG, folder / CHECKPOINTS / BEST, folder, split="val")
    write_page(folder)  # with its scores, beside those of the random start


def summary(folder: Path, counts: Sequence[int], starts: Sequence[Start], seeds: int) -> dict[str, Any]:
    """Scores by start and size, and differences to the first start; all in per cent.

    The interval of a difference resamples the validation images, the same ones for both starts, on the mean over seeds;
    how far the seeds differ is beside it.
    """
    from mst_pretrain.runtime.json_text import read_json

    from .intervals import Bootstrap, load

    rows: list[dict[str, Any]] = []
    metric = None
    for count in counts:
        first: list[np.ndarray] = []
        for start in starts:
            places = [run_folder(folder, count, start, seed) for seed in range(seeds)]
            told = [read_json(place / METRICS)["main"] for place in places]
            metric = told[0]["name"]
            trivial = [one.get("baseline") for one in told]  # of the labels of each seed
            baseline = None if None in trivial else float(np.mean(trivial))
            samples = [Bootstrap(load(place / PER_IMAGE)[0]).by_resample for place in places]
            values = [float(sample[0]) for sample in samples]
            row = {
                "labels": count,
                "start": start.given,
                "mean": float(np.mean(values)),
                "spread": float(np.std(values, ddof=1)) if seeds > 1 else None,
                "seeds": values,
                "baseline": baseline,
            }
            if not first:
                first = samples
            else:
                differences = np.mean([now - then for now, then in zip(samples, first, strict=True)], axis=0)
                low, high = np.nanpercentile(differences[1:], [2.5, 97.5])
                row["difference"] = {
                    "to": starts[0].given,
                    "mean": float(differences[0]),
                    "low": float(low),
                    "high": float(high),
                    "seeds": [float(now[0] - then[0]) for now, then in zip(samples, first, strict=True)],
                }
            rows.append(row)
    return {"metric": metric, "seeds": seeds, "rows": rows}


def short_names(result: dict[str, Any]) -> dict[str, str]:
    """The last part of each start's path, or the whole where two would be called the same."""
    starts = list(dict.fromkeys(row["start"] for row in result["rows"]))
    last = [Path(start).name for start in starts]
    return {start: name if last.count(name) == 1 else start for start, name in zip(starts, last, strict=True)}


def table(result: dict[str, Any]) -> str:
    """As Markdown."""
    names = short_names(result)
    lines = [
        f"| labelled images | start | {result['metric']}, % (mean of {result['seeds']} seeds) | spread | "
        "trivial baseline | difference (95 % interval over images) | difference by seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        found, base = row.get("difference"), row["baseline"]
        spread = "-" if row["spread"] is None else f"{row['spread']:.2f}"
        shown = f"{found['mean']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})" if found else "-"
        each = ", ".join(f"{value:+.2f}" for value in found["seeds"]) if found else "-"
        trivial = "-" if base is None or math.isnan(base) else f"{base:.2f}"
        lines.append(
            f"| {row['labels']} | {names[row['start']]} | {row['mean']:.2f} | {spread} | {trivial} | {shown} | {each} |"
        )
    return "\n".join(lines)


def verdict(result: dict[str, Any]) -> list[str]:
    """In words: a difference counts where its interval leaves zero out and all seeds agree."""
    lines, names = [], short_names(result)
    for row in result["rows"]:
        if (found := row.get("difference")) is None:
            continue
        agree = all(value > 0 for value in found["seeds"]) or all(value < 0 for value in found["seeds"])
        clear = agree and (found["low"] > 0 or found["high"] < 0)
        word = ("better" if found["mean"] > 0 else "worse") if clear else "not told apart"
        lines.append(
            f"{row['labels']} labelled images: {names[row['start']]} against {names[found['to']]}: {word}"
        )
    return lines


def write(result: dict[str, Any], folder: Path) -> None:
    """``comparison.json``, ``comparison.md`` and ``comparison.png``, and the table printed."""
    from mst_pretrain.runtime.atomic import write_json, write_text

    how = f"Intervals: percentiles of {RESAMPLES:,} resamples of the validation images, the same for both starts."
    text = "\n".join([table(result), "", how, *verdict(result)])
    write_json(result, folder / RESULT)
    write_text(text + "\n", folder / "comparison.md")
    draw(result, folder / PICTURE)
    print(
        f"\n{text}\n\nWritten: {folder / 'comparison.md'}, {folder / RESULT}, {folder / PICTURE}", flush=True
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Score by number of labelled images, a line for each start, a point for each seed."""
    import matplotlib

    from mst_pretrain.runtime.atomic import replacing

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6))
    names = short_names(result)
    for start in dict.fromkeys(row["start"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["start"] == start]
        (line,) = axis.plot(
            [row["labels"] for row in rows], [row["mean"] for row in rows], marker="o", label=names[start]
        )
        for row in rows:
            axis.plot(
                [row["labels"]] * len(row["seeds"]), row["seeds"], ".", color=line.get_color(), alpha=0.5
            )
    trivial = {row["labels"]: row["baseline"] for row in result["rows"] if row["baseline"] is not None}
    if trivial:
        axis.plot(list(trivial), list(trivial.values()), "o:", color="gray", label="trivial baseline")
    axis.set_xlabel("labelled training images")
    axis.set_ylabel(f"{result['metric']}, %")
    axis.legend(fontsize=8)
    figure.tight_layout()
    with replacing(path) as part:
        figure.savefig(part, dpi=130, format="png")
    plt.close(figure)
