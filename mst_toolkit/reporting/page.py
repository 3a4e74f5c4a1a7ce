"""The page: sections are gathered, rendered by jinja2, and made small enough."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mst_pretrain.runtime.atomic import write_text
from mst_pretrain.runtime.errors import UserError

from .. import __version__
from . import facts_shown, score_tables, side_by_side
from .curves import panels, shared_panels
from .health_words import health
from .random_start import random_start_of
from .reported_run import ReportedRun, number, read_run
from .run_pictures import data_part, example_parts, neighbour_part, seen_part
from .shown import PagePart, encoder
from .verdict_words import NAMES, verdict

TEMPLATES = Path(__file__).parent / "templates"
MOST_BYTES = 5_000_000
SIZES = ((480, 82), (400, 78), (320, 72), (240, 65), (160, 55))  # pixels and quality, tried in turn


def write_page(folders: Sequence[Path], out: Path | None) -> Path:
    """See :func:`mst_toolkit.reporting.write_report`."""
    if not folders:
        raise UserError("there is no run to report. Give one: mst report runs/YOUR_RUN")
    runs = [read_run(folder) for folder in folders]
    side_by_side.check_comparable(runs)
    default = folders[0] if len(folders) == 1 else folders[0].resolve().parent
    target = out or default
    path = target if target.suffix == ".html" else target / "report.html"
    content = run_content(runs[0]) if len(runs) == 1 else comparison_content(runs)
    template = "run.html.j2" if len(runs) == 1 else "comparison.html.j2"
    write_text(small_page(template, content), path)
    return path


def small_page(template: str, content: dict[str, Any]) -> str:
    """The page with pictures as large as 5 MB allow.

    Raises:
        UserError: Even the smallest pictures make it larger.
    """
    for side, quality in SIZES:
        page = render(template, content, side, quality)
        if len(page.encode()) <= MOST_BYTES:
            return page
    raise UserError(
        f"the report would have {len(page.encode()) / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}. Give fewer runs "
        "at once."
    )


def render(template: str, content: dict[str, Any], side: int, quality: int) -> str:
    """One template with its content; whatever it is given is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = encoder(side, quality)
    written = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(written=written, version=__version__, **content)


def run_content(run: ReportedRun) -> dict[str, Any]:
    """All that the page of one run shows."""
    signs = health(run)
    facts, said, objects = facts_shown.data_facts(run)
    data = data_part(run)
    if not facts:
        data.left_out.insert(0, "What the data are is left out: there is no plan.json that says it.")
    data.tables += [objects] if objects else []
    content: dict[str, Any] = {
        "title": run.title,
        "task": NAMES[run.task],
        "verdict": verdict(run, signs),
        "main": _main(run),
        "facts": facts_shown.run_facts(run),
        "data_facts": facts,
        "data_said": said,
        "data": data,
        "signs": signs,
        "panels": panels(run),
        "scores": _score_parts(run),
        "matrix": [],
        "examples": [] if run.task == "pretrain" else example_parts(run),
        "seen": [seen_part(run), neighbour_part(run)] if run.task == "pretrain" else [],
        "decisions": facts_shown.decisions(run),
        "commands": facts_shown.next_commands(run),
        "versions": facts_shown.versions(run),
    }
    if run.metrics:
        part, content["matrix"] = score_tables.confusion_part(run)
        content["scores"].append(part)
    return content


def comparison_content(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """All that the page of several runs shows."""
    names = side_by_side.run_names(runs)
    scores = side_by_side.score_part(runs, names)
    told, scores.sentences = scores.sentences, []
    return {
        "told": told,
        "title": f"{len(runs)} runs side by side",
        "task": NAMES[runs[0].task],
        "warnings": side_by_side.warnings(runs, names),
        "scores": scores,
        "panels": shared_panels(runs, names),
        "health": [
            (name, [sign for sign in health(run) if sign.level != "ok"])
            for run, name in zip(runs, names, strict=True)
        ],
        "classes": side_by_side.class_table(runs, names),
        "pictures": side_by_side.picture_part(runs, names),
        "decisions": side_by_side.decision_part(runs, names),
        "facts": [(name, facts_shown.run_facts(run)) for run, name in zip(runs, names, strict=True)],
    }


def _main(run: ReportedRun) -> dict[str, Any] | None:
    main = run.metrics.get("main") or {}
    return main if number(main.get("value")) is not None else None


def _score_parts(run: ReportedRun) -> list[PagePart]:
    if run.metrics:
        start = random_start_of(run)
        return [
            score_tables.start_part(run, start),
            score_tables.probe_part(run),
            score_tables.class_part(run, start),
            score_tables.all_scores(run, start),
        ]
    measure = "mst probe" if run.task == "pretrain" else "mst evaluate"
    return [PagePart(left_out=[f"Scores are left out: there is no metrics.json. {measure} writes it."])]
