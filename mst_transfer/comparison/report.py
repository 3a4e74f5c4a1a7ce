"""The comparison as Markdown, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.atomic import replacing, write_json

from .table import Cell, Table, Task, mean_and_spread

SPREAD = "sample standard deviation over seeds"
DIGITS = 12  # of a sha256, in the Markdown


def text_of(cell: Cell, task: Task) -> str:
    """``43.7 / 39.8``, with the spread and the number of seeds where there are several; empty where nobody ran it."""
    if not cell.runs:
        return "" if cell.exists else "-"
    parts = []
    for metric in task.metrics:
        values = cell.values(metric, task.scale)
        if not values:
            parts.append("?")
            continue
        mean, spread = mean_and_spread(values)
        parts.append(f"{mean:.2f}" + (f" ± {spread:.2f}" if spread is not None else ""))
    return " / ".join(parts) + (f" (n={len(cell.runs)})" if len(cell.runs) > 1 else "")


def markdown(tables: Sequence[Table], left_out: Sequence[str] = ()) -> str:
    """All tables, and below each one line per run: config, row, seed, checkpoint, date."""
    lines: list[str] = []
    for table in tables:
        note = f"Per cent; ± is the {SPREAD}. Empty: nobody has run it. -: nobody has published such weights."
        lines += [f"### {table.task.name}", "", note, ""]
        lines.append("| initialisation | " + " | ".join(map(table.title, table.columns)) + " |")
        lines.append("|---" * (len(table.columns) + 1) + "|")
        for row in table.rows:
            cells = [text_of(table.cells[column, row], table.task) for column in table.columns]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines += ["", *_provenance(table)]
    if left_out:
        lines += ["Left out:", "", *(f"- {line}" for line in left_out), ""]
    return "\n".join(lines)


def _provenance(table: Table) -> list[str]:
    titles = list(table.task.metrics.values())
    head = [
        "config",
        "initialisation",
        "seed",
        *titles,
        "checkpoint (sha256)",
        "started from (sha256)",
        "tested",
    ]
    lines = []
    for (column, row), cell in table.cells.items():
        for run in cell.runs:
            scores = [
                f"{table.task.scale * run['metrics'][metric]:.2f}" if metric in run["metrics"] else "?"
                for metric in table.task.metrics
            ]
            start = (run["run"]["init_sha256"] or "random")[:DIGITS]
            values = [
                table.title(column),
                row,
                str(run["run"]["seed"]),
                *scores,
                run["checkpoint_sha256"][:DIGITS],
                start,
            ]
            lines.append("| " + " | ".join([*values, run["date"][:10]]) + " |")
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *lines, ""] if lines else []


def as_json(tables: Sequence[Table], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The same with every record; a cell that nobody ran is null."""
    return {
        "unit": "per cent",
        "spread": SPREAD,
        "tables": [
            {
                "task": table.task.name,
                "columns": [vars(column) | {"title": table.title(column)} for column in table.columns],
                "rows": [
                    {
                        "initialisation": row,
                        "cells": [
                            _cell_json(table.cells[column, row], table.task) for column in table.columns
                        ],
                    }
                    for row in table.rows
                ],
            }
            for table in tables
        ],
        "left_out": list(left_out),
    }


def _cell_json(cell: Cell, task: Task) -> dict[str, Any] | None:
    if not cell.runs:
        return None
    metrics = {}
    for metric, title in task.metrics.items():
        values = cell.values(metric, task.scale)
        if values:
            mean, spread = mean_and_spread(values)
            metrics[title] = {"mean": mean, "spread": spread, "n": len(values), "values": values}
    return {"metrics": metrics, "runs": cell.runs}


def draw(tables: Sequence[Table], path: Path) -> None:
    """A panel per task and column: a dot per seed, a bar for mean and spread of the first metric."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(table, column) for table in tables for column in table.columns]
    panels = [(t, c) for t, c in panels if any(t.cells[c, row].runs for row in t.rows)]
    figure = Figure(figsize=(7, 0.8 + 2.6 * max(1, len(panels))), dpi=130, layout="constrained")
    axes = figure.subplots(max(1, len(panels)), squeeze=False)[:, 0]
    for axis, (table, column) in zip(axes, panels, strict=False):
        metric, title = next(iter(table.task.metrics.items()))
        shown = [row for row in table.rows if table.cells[column, row].runs]
        for place, row in enumerate(shown):
            values = table.cells[column, row].values(metric, table.task.scale)
            mean, spread = mean_and_spread(values)
            axis.errorbar(mean, place, xerr=spread or 0.0, fmt="|", color="k", markersize=12, capsize=4)
            axis.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.6, markersize=5)
        axis.set_yticks(range(len(shown)), shown)
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set_xlabel(f"{title}, per cent")
        data = table.task.name.partition(",")[0]
        axis.set_title(f"{data}: {table.title(column)}", fontsize=9, wrap=True)
        axis.grid(axis="x", alpha=0.3)
    if not panels:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "nothing has been run yet", ha="center")
    with replacing(path) as part:
        FigureCanvasAgg(figure).print_png(part)


def write(tables: Sequence[Table], left_out: Sequence[str], out: Path) -> list[Path]:
    """``comparison.md``, ``.json`` and ``.png`` in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"comparison.{suffix}" for suffix in ("md", "json", "png")]
    with replacing(files[0]) as part:
        part.write_text(markdown(tables, left_out) + "\n", encoding="utf-8")
    write_json(as_json(tables, left_out), files[1])
    draw(tables, files[2])
    return files
