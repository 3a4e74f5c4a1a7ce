"""From the records of tests to the comparison: a table per task, with a cell per experiment and row over all seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.atomic import write_json, write_text
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.json_text import parse_json

from ..evaluation.baselines import BOXES, PRIOR
from .identity import SHOWN, deviations
from .record import RESULTS
from .rows import ROWS

UNKNOWN_BASELINE = "not recorded"
SPREAD = "sample standard deviation over seeds"
FIELDS = {"run", "checkpoint", "checkpoint_sha256", "iteration", "tta", "options", "metrics", "date"}


@dataclass(frozen=True)
class ComparedTask:
    """What is compared: its metrics' keys and titles, what makes them per cent, and the trivial baseline's name."""

    name: str
    metrics: dict[str, str]
    scale: float
    baseline: str


TASKS = (
    ComparedTask(
        "COCO, box AP / mask AP", {"coco/bbox_mAP": "box AP", "coco/segm_mAP": "mask AP"}, 100.0, BOXES
    ),
    ComparedTask(
        "Cityscapes, mIoU / mAcc / aAcc", {"mIoU": "mIoU", "mAcc": "mAcc", "aAcc": "aAcc"}, 1.0, PRIOR
    ),
)


@dataclass(frozen=True)
class Column:
    """One experiment: everything in a column was trained and tested alike, except for the row and the seed.

    Attributes:
        config: Name of the config file.
        setting: What else made it another experiment: options, training not finished, test-time augmentation, a test
            with another config or on other data than the training's.
        config_sha256: Of the config. Two versions of a config are two columns.
        data_sha256: Of the training data, likewise; None where it was not recorded.
    """

    config: str
    setting: str = ""
    config_sha256: str = ""
    data_sha256: str | None = None


@dataclass
class Table:
    """The comparison of one task.

    Attributes:
        task: What was measured.
        columns: Experiments.
        rows: Initialisations.
        runs: Records by column and row, one per seed; no entry where there was no run.
    """

    task: ComparedTask
    columns: list[Column]
    rows: list[str]
    runs: dict[tuple[Column, str], list[dict[str, Any]]]

    def title(self, column: Column) -> str:
        """Config, setting, and the digests of config and training data where several of them were run."""
        same = [c for c in self.columns if (c.config, c.setting) == (column.config, column.setting)]
        notes = [column.setting]
        for name, key in (("version", "config_sha256"), ("training data", "data_sha256")):
            if len({getattr(c, key) for c in same}) > 1:
                notes.append(f"{name} {(getattr(column, key) or 'unknown')[:SHOWN]}")
        text = ", ".join(filter(None, notes))
        return f"{column.config} ({text})" if text else column.config

    def scores(self, column: Column, row: str) -> dict[str, dict[str, Any]]:
        """Mean, spread, number and values over seeds in per cent, by the metric's title."""
        found = {}
        for metric, title in self.task.metrics.items():
            metrics = [run["metrics"] for run in self.runs.get((column, row), [])]
            values = [self.task.scale * scores[metric] for scores in metrics if metric in scores]
            if values:
                found[title] = over_seeds(values)
        return found

    def text(self, column: Column, row: str) -> str:
        """``43.70 ± 0.21 / 39.80 ± 0.10 (n=3)``; empty where there was no run."""
        scores, runs = self.scores(column, row), self.runs.get((column, row), [])
        if not runs:
            return ""
        titles = self.task.metrics.values()
        parts = [with_spread(scores[title]) if title in scores else "?" for title in titles]
        return " / ".join(parts) + (f" (n={len(runs)})" if len(runs) > 1 else "")

    def baseline(self, column: Column) -> dict[str, float]:
        """Scores in per cent of the trivial baseline on a column's data, by the metric's title; empty if unknown."""
        found: dict[str, float] = {}
        for row in self.rows:
            for run in self.runs.get((column, row), []):
                known = run.get("baseline") or {}  # of version 0.1 it is not there
                found |= {t: self.task.scale * known[m] for m, t in self.task.metrics.items() if m in known}
        return found

    def baseline_text(self, column: Column) -> str:
        """``2.10 / 1.30``, or that it was not recorded."""
        found = self.baseline(column)
        known = [f"{found[title]:.2f}" for title in self.task.metrics.values() if title in found]
        return " / ".join(known) or UNKNOWN_BASELINE


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """``mean``, ``spread`` (the sample standard deviation, of two or more), ``n`` and the values; None of no values."""
    mean = statistics.fmean(values) if values else None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": mean, "spread": spread, "n": len(values), "values": list(values)}


def with_spread(score: dict[str, Any]) -> str:
    """``43.70 ± 0.21`` of what :func:`over_seeds` gives, the mean of one value, or nothing."""
    if score["mean"] is None:
        return ""
    return f"{score['mean']:.2f}" + ("" if score["spread"] is None else f" ± {score['spread']:.2f}")


def collect(folders: Iterable[str | Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every record of a test below some folders whose training is known, and a line about each other one."""
    records: list[dict[str, Any]] = []
    left_out: list[str] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(
                f"{folder} does not exist or is not a folder. Give folders in which tools/test.py wrote."
            )
        for path in sorted(folder.rglob(f"{RESULTS}/*.json")):
            record = read_record(path)
            if record["run"] is not None:
                records.append(record)
                continue
            left_out.append(
                f"{path}: {record['checkpoint']} has no run.json beside it, so its row is unknown"
            )
    return records, left_out


def read_record(path: Path) -> dict[str, Any]:
    """One record of tools/test.py, with its own path in ``file``."""
    try:
        record = parse_json(path.read_bytes())
        missing = sorted(FIELDS - set(record))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Remove it, or run the test again.") from error
    if missing:
        raise UserError(
            f"{path} is not a record of tools/test.py: it lacks {', '.join(missing)}. Remove it, or run the test again."
        )
    return {**record, "file": str(path)}


def column_of(record: dict[str, Any]) -> Column:
    """The experiment that a record belongs to."""
    run = record["run"]
    parts = [*_option_parts(run["options"], record["options"]), *deviations(record)]
    done, planned = record["iteration"], run["iterations"]
    if done is not None and done < planned:
        parts.append(f"after {done} of {planned} iterations")
    if record["tta"]:
        parts.append("multi-scale + flip")
    train = (run.get("data") or {}).get("train") or {}
    return Column(Path(run["config"]).stem, ", ".join(parts), run["config_sha256"], train.get("sha256"))


def _option_parts(trained: dict[str, Any], tested: dict[str, Any]) -> list[str]:
    """``KEY=VALUE`` of a training and its test, and where only one of them had it although it matters to both."""
    parts = []
    for key in sorted(trained.keys() | tested.keys()):
        part = f"{key}={trained.get(key, tested.get(key))}"
        if key not in tested and key.startswith(("model.", "test_")):
            part += " in training only"
        elif key in trained and key in tested and trained[key] != tested[key]:
            part += f" in training and {tested[key]} in the test"
        parts.append(part)
    return parts


def build(records: Sequence[dict[str, Any]]) -> list[Table]:
    """The tables of all tasks that were tested; of several tests of one seed the newest counts."""
    tables = []
    for task in TASKS:
        newest: dict[tuple[Column, str], dict[int, dict[str, Any]]] = {}
        for record in sorted(records, key=lambda record: record["date"]):
            if set(record["metrics"]) & set(task.metrics):
                cell = column_of(record), record["run"]["init"]
                newest.setdefault(cell, {})[record["run"]["seed"]] = record
        if newest:
            found = {column for column, _ in newest}
            columns = sorted(found, key=lambda column: [value or "" for value in vars(column).values()])
            rows = [*ROWS, *sorted({row for _, row in newest} - set(ROWS))]
            runs = {cell: [by_seed[seed] for seed in sorted(by_seed)] for cell, by_seed in newest.items()}
            tables.append(Table(task, columns, rows, runs))
    return tables


def markdown(tables: Sequence[Table], left_out: Sequence[str] = ()) -> str:
    """All tables, and what was left out of them."""
    lines: list[str] = []
    for table in tables:
        lines += [f"### {table.task.name}", ""]
        lines += [f"Per cent; ± is the {SPREAD}. An empty cell has not been run.", ""]
        trivial = f"trivial baseline ({table.task.baseline})"
        titles = [title for column in table.columns for title in (table.title(column), trivial)]
        lines.append("| initialisation | " + " | ".join(titles) + " |")
        lines.append("|---" * (len(titles) + 1) + "|")
        for row in table.rows:
            pairs = ((table.text(column, row), table.baseline_text(column)) for column in table.columns)
            lines.append(f"| {row} | " + " | ".join(cell for pair in pairs for cell in pair) + " |")
        lines.append("")
    if left_out:
        lines += ["Left out:", "", *(f"- {line}" for line in left_out), ""]
    return "\n".join(lines) or "no test has left a result yet"


def as_json(tables: Sequence[Table], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The same with every record; a cell without a run is null."""

    def cell(table: Table, column: Column, row: str) -> dict[str, Any] | None:
        runs = table.runs.get((column, row))
        return {"metrics": table.scores(column, row), "runs": runs} if runs else None

    return {
        "unit": "per cent",
        "spread": SPREAD,
        "tables": [
            {
                "task": table.task.name,
                "columns": [vars(column) | {"title": table.title(column)} for column in table.columns],
                "baseline": [table.baseline(column) for column in table.columns],
                "rows": [
                    {"initialisation": row, "cells": [cell(table, column, row) for column in table.columns]}
                    for row in table.rows
                ],
            }
            for table in tables
        ],
        "left_out": list(left_out),
    }


def write(tables: Sequence[Table], left_out: Sequence[str], out: Path) -> None:
    """Write ``comparison.md`` and ``comparison.json`` into ``out``."""
    write_text(markdown(tables, left_out) + "\n", out / "comparison.md")
    write_json(as_json(tables, left_out), out / "comparison.json")
