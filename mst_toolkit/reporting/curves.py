"""Curves as SVG that takes its colours from the page: dark and light, no font and no network needed."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .health_words import RANK, main_score, series
from .reported_run import ReportedRun

COLORS = 8  # variables --c0 to --c7 of the page
POINTS = 300  # of one line
RANK_TITLE = "RankMe: directions that the features use"
FLAT = 0.2  # share of the level below which a range is widened
WIDTH, HEIGHT = 4.6, 2.5  # inches: text of 9 pt stays legible at the width of a phone
INK = "#010203"  # stands for the page's text colour
LINES = [f"#0102{16 * (number + 1):02x}" for number in range(COLORS)]  # stand for the variables
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
ID = re.compile(r'(?<=\bid=")([^"]+)')
REFERENCE = re.compile(r'(?<=href="#)([^"]+)|(?<=url\(#)([^)]+)')
# Keys of metrics.jsonl that are drawn together, by title; all others that hold "loss" are drawn with the loss.
PANELS = (
    ("Learning rate", ("lr",)),
    ("Images per second", ("images_per_second",)),
    ("Waiting for images, share of the time", ("data_share",)),
    ("Teacher: entropy and KL to the student", ("teacher_entropy", "kl")),
    ("Spread of the features", ("feature_std",)),
    ("Hidden patches per view", ("masked_tokens",)),
    ("Teacher's attention on hidden and visible patches", ("attention_masked", "attention_visible")),
    ("Gradient norm", ("grad_norm",)),
    ("Memory, GB", ("memory_gb",)),
)


@dataclass(frozen=True)
class CurveLine:
    """One line of a panel.

    Attributes:
        label: Of the legend.
        steps: Rising.
        values: Finite, as many.
        color: Number of the colour and of the dashes.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    color: int = 0


@dataclass(frozen=True)
class CurvePanel:
    """One drawn picture with its title and legend, which the page writes itself."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, int], ...]


def panels(run: ReportedRun, prefix: str = "run") -> list[CurvePanel]:
    """Every curve that a run recorded: losses, scores, learning rate, speed, health."""
    losses = [key for key in _keys(run.training) if "loss" in key and not key.startswith("loss_scale")]
    groups: list[tuple[str, Sequence[str], Sequence[dict]]] = [
        ("Loss", sorted(losses, key=lambda key: key != "loss"), run.training)
    ]
    scores = _keys(run.validations)
    main = main_score(run)
    scores = [main, *(key for key in scores if key not in (main, RANK))][:4] if main else []
    groups += [("Score in the validations, %", scores, run.validations)]
    groups += [(RANK_TITLE, [RANK], run.validations)]
    groups += [(title, keys, run.training) for title, keys in PANELS]
    found = []
    for number, (title, keys, lines) in enumerate(groups):
        drawn = [CurveLine(key, *series(lines, key), color) for color, key in enumerate(keys)]
        panel = draw_panel(title, drawn, f"{prefix}-{number}", marked=lines is run.validations)
        found += [panel] if panel else []
    return found


def shared_panels(runs: Sequence[ReportedRun], names: Sequence[str]) -> list[CurvePanel]:
    """Loss, main score and RankMe of several runs over each other."""
    wanted = [("Loss", [("loss", run.training) for run in runs], False)]
    wanted += [
        ("Score in the validations, %", [(main_score(run) or "", run.validations) for run in runs], True)
    ]
    wanted += [(RANK_TITLE, [(RANK, run.validations) for run in runs], True)]
    found = []
    for number, (title, parts, marked) in enumerate(wanted):
        drawn = [
            CurveLine(name, *series(lines, key), place)
            for place, (name, (key, lines)) in enumerate(zip(names, parts, strict=True))
        ]
        panel = draw_panel(title, drawn, f"shared-{number}", marked)
        found += [panel] if panel else []
    return found


def draw_panel(
    title: str, lines: Sequence[CurveLine], prefix: str, marked: bool = False
) -> CurvePanel | None:
    """One panel, or None where no line has a point.

    Args:
        title: Of the page and of the picture's description.
        lines: What is drawn; a longer line than 300 points is averaged in sections.
        prefix: Stands before every id of the picture, and must be the page's only one.
        marked: Whether every point gets a mark.
    """
    drawn = [line for line in lines if len(line.steps)]
    if not drawn:
        return None
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.size": 9}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.add_subplot()
        for line in drawn:
            steps, values = thinned(line.steps, line.values)
            alone = marked or len(steps) == 1
            axis.plot(
                steps,
                values,
                color=LINES[line.color % COLORS],
                linestyle=DASHES[line.color // COLORS % len(DASHES)],
                linewidth=1.6,
                marker="o" if alone else None,
                markersize=3.5,
            )
        _dress(axis)
        stream = io.StringIO()
        empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(stream, format="svg", transparent=True, metadata=empty)
    legend = tuple((line.label, line.color % COLORS) for line in drawn)
    return CurvePanel(title, themed(stream.getvalue(), prefix, title), legend)


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most 300 points: means over sections of equal length. A short line stays as it is."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(x) <= POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def themed(svg: str, prefix: str, title: str) -> Markup:
    """matplotlib's SVG for the middle of a page: ids of its own, the page's colours and font, no rule for others."""
    svg = svg[svg.index("<svg") :]
    for part in ("metadata", "style"):  # the style would count for the whole page
        svg = re.sub(rf"<{part}\b.*?</{part}>", "", svg, flags=re.DOTALL)
    svg = ID.sub(rf"{prefix}-\1", svg)
    svg = REFERENCE.sub(lambda match: f"{prefix}-{match[0]}", svg)
    svg = svg.replace(INK, "currentColor")
    for number, color in enumerate(LINES):
        svg = svg.replace(color, f"var(--c{number})")
    svg = re.sub(r"font-family: [^;\"]+; ?|font: \S+ [^;\"]+; ?", "", svg)
    label = Markup.escape(title)
    attributes = f'class="curve" role="img" aria-label="{label}" stroke-linejoin="round"'
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return Markup(svg.replace("<svg", f"<svg {attributes}", 1).strip())


def _keys(lines: Sequence[dict]) -> list[str]:
    """All keys with numbers, in the order in which they came; no step, time or epoch."""
    found = dict.fromkeys(key for line in lines for key in line)
    return [key for key in found if key not in ("step", "total", "time", "epoch") and series(lines, key)[1]]


def _dress(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    for spine in axis.spines.values():
        spine.set_color(INK)
    axis.tick_params(colors=INK, width=0.8, length=3)
    axis.grid(True, color=INK, alpha=0.15, linewidth=0.6)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axis.set_xlabel("step", color=INK)
    axis.set_xlim(left=0)
    low, high = axis.get_ylim()
    level = max(abs(low), abs(high))
    if high - low < FLAT * level:  # a constant is drawn as one
        axis.set_ylim((low + high) / 2 - FLAT * level, (low + high) / 2 + FLAT * level)
