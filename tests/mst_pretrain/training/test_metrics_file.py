"""metrics.jsonl: one whole JSON object a line, cut where a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.training.metrics_file import MetricsFile, read_metrics


def line(step: int, stage: str = "train", **values: Any) -> dict[str, Any]:
    return {"step": step, "stage": stage, **values}


@pytest.fixture
def file(tmp_path: Path) -> MetricsFile:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for entry in (line(5), line(10), line(10, "eval"), line(15), line(20)):
        file.add(entry)
    return file


def test_numbers_that_are_not_finite_are_null(file: MetricsFile) -> None:
    """A reader of JSON would stop at NaN."""
    file.add(line(25, loss=float("nan"), norm=float("inf"), lr=0.5))
    last = file.path.read_text().splitlines()[-1]
    assert last == '{"step": 25, "stage": "train", "loss": null, "norm": null, "lr": 0.5}'


@pytest.mark.parametrize(
    ("step", "evaluated", "kept"),
    [
        (0, True, []),
        (10, True, [(5, "train"), (10, "train"), (10, "eval")]),
        (10, False, [(5, "train"), (10, "train")]),
        (17, False, [(5, "train"), (10, "train"), (10, "eval"), (15, "train")]),
        (99, True, [(5, "train"), (10, "train"), (10, "eval"), (15, "train"), (20, "train")]),
    ],
)
def test_lines_beyond_the_checkpoint_are_cut(
    file: MetricsFile, step: int, evaluated: bool, kept: list[tuple[int, str]]
) -> None:
    """A curve would go back in time where a killed run was resumed."""
    returned = file.cut(step, evaluated)
    assert [(entry["step"], entry["stage"]) for entry in returned] == kept
    assert [json.loads(text) for text in file.path.read_text().splitlines()] == returned


def test_half_a_line_of_a_killed_run_is_dropped(file: MetricsFile) -> None:
    """The next line would be appended to it, and both be lost."""
    with open(file.path, "a") as stream:
        stream.write('{"step": 25, "sta')
    assert len(file.cut(99)) == 5
    file.add(line(25))
    assert [entry["step"] for entry in read_metrics(file.path)] == [5, 10, 10, 15, 20, 25]
