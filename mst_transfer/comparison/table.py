"""From the records of tests to the comparison: one cell per configuration and row, over all its seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError

from .identity import SHOWN, deviations
from .record import RESULTS
from .rows import INITIALISATIONS, RANDOM, ROWS, architecture_of

FIELDS = {"run", "checkpoint", "checkpoint_sha256", "iteration", "tta", "options", "metrics", "date"}


@dataclass(frozen=True)
class Task:
    """What is compared: its metrics' keys and titles, and what makes them per cent."""

    name: str
    metrics: dict[str, str]
    scale: float


TASKS = (
    Task("COCO, box AP / mask AP", {"coco/bbox_mAP": "box AP", "coco/segm_mAP": "mask AP"}, 100.0),
    Task("Cityscapes, mIoU / mAcc / aAcc", {"mIoU": "mIoU", "mAcc": "mAcc", "aAcc": "aAcc"}, 1.0),
)


@dataclass(frozen=True)
class Column:
    """One experiment: everything in a column was trained and tested alike, except for the row and the seed.

    Attributes:
        config: Name of the config file.
        setting: What else made it another experiment: options, training not finished, test-time augmentation, a test
            with another config or on other data than the training's.
        config_sha256: Of the config; None while nothing was run. Two versions of a config are two columns.
        data_sha256: Of the training data, likewise.
    """

    config: str
    setting: str = ""
    config_sha256: str | None = None
    data_sha256: str | None = None


@dataclass
class Cell:
    """All runs of one column and row, by seed.

    Attributes:
        runs: One record per seed.
        exists: False where nobody has such weights for this architecture.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    exists: bool = True

    def values(self, metric: str, scale: float) -> list[float]:
        """The metric of each run, per cent."""
        return [scale * run["metrics"][metric] for run in self.runs if metric in run["metrics"]]


@dataclass
class Table:
    """The comparison of one task."""

    task: Task
    columns: list[Column]
    rows: list[str]
    cells: dict[tuple[Column, str], Cell]

    def title(self, column: Column) -> str:
        """Config, setting, and the digests of config and training data where several of them were run."""
        same = [c for c in self.columns if (c.config, c.setting) == (column.config, column.setting)]
        notes = [column.setting]
        for name, key in (("version", "config_sha256"), ("training data", "data_sha256")):
            if len({getattr(c, key) for c in same}) > 1:
                notes.append(f"{name} {(getattr(column, key) or 'unknown')[:SHOWN]}")
        text = ", ".join(filter(None, notes))
        return f"{column.config} ({text})" if text else column.config


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the sample standard deviation (n - 1) of two or more."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def collect(folders: Iterable[str | Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every record of a test below some folders.

    Returns:
        The records whose training is known, and a line about each one that was left out.

    Raises:
        UserError: A folder does not exist, or a record cannot be read.
    """
    records: list[dict[str, Any]] = []
    left_out: list[str] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder. Give folders in which tools/test.py wrote.")
        for path in sorted(folder.rglob(f"{RESULTS}/*.json")):
            record = read_record(path)
            if record["run"] is None:
                left_out.append(
                    f"{path}: {record['checkpoint']} has no run.json beside it, so its row is unknown"
                )
            else:
                records.append(record)
    return records, left_out


def read_record(path: Path) -> dict[str, Any]:
    """One record, with its own path in ``file``.

    Raises:
        UserError: It is not a record of tools/test.py.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
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
        if key not in tested:
            matters = key.startswith(("model.", "test_"))
            parts.append(f"{key}={trained[key]}{' in training only' if matters else ''}")
        elif trained.get(key, tested[key]) != tested[key]:
            parts.append(f"{key}={trained[key]} in training and {tested[key]} in the test")
        else:
            parts.append(f"{key}={tested[key]}")
    return parts


def build(records: Sequence[dict[str, Any]], configs: Sequence[str | Path] = ()) -> list[Table]:
    """The tables of all tasks that have a column.

    Args:
        records: Of :func:`collect`. Of several tests of one seed the newest counts.
        configs: Config files that have a column even where nobody has run them.
    """
    planned = {Path(config).stem: str(config) for config in configs}
    tables = []
    for task in TASKS:
        own = [record for record in records if set(record["metrics"]) & set(task.metrics)]
        tried = {column_of(record) for record in own}
        run = {column.config for column in tried if not column.setting}
        empty = {Column(name) for name, path in planned.items() if name not in run and _task_of(path) is task}
        columns = sorted(tried | empty, key=lambda c: tuple(value or "" for value in vars(c).values()))
        if not columns:
            continue
        others = sorted({record["run"]["init"] for record in own} - set(ROWS))
        rows = [*ROWS, *others]
        cells = {(column, row): _cell(column, row, own, planned) for column in columns for row in rows}
        tables.append(Table(task, columns, rows, cells))
    return tables


def _cell(column: Column, row: str, records: Sequence[dict[str, Any]], planned: dict[str, str]) -> Cell:
    newest: dict[int, dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record["date"]):
        if column_of(record) == column and record["run"]["init"] == row:
            newest[record["run"]["seed"]] = record
    exists = True
    if not newest and row in ROWS and row != RANDOM and column.config in planned:
        exists = (row, architecture_of(load_config(planned[column.config]))) in INITIALISATIONS
    return Cell([newest[seed] for seed in sorted(newest)], exists)


def _task_of(config: str) -> Task:
    return TASKS[0] if load_config(config).get("default_scope") == "mmdet" else TASKS[1]
