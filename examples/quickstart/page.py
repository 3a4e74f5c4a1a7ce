"""The demonstration's report: one HTML page without any request to a network, for light and dark, phone and desk."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.atomic import write_text

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6167; --paper: #ffffff; --card: #f4f5f6; --line: #d9dcdf;
  --one: #0b62c4; --two: #b3470a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a2a9b0; --paper: #15171a; --card: #1f2226;
  --line: #363b41; --one: #6cb0ff; --two: #ff9d5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, li { max-width: 44rem; overflow-wrap: anywhere; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict { background: var(--card); border-left: 4px solid var(--one); padding: .8rem 1rem; font-size: 1.08rem; }
.wide { overflow-x: auto; } figure { margin: 0; } .wide img { min-width: 44rem; width: 100%; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } caption { text-align: left; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td small { display: block; color: var(--soft); } td.best { font-weight: 650; }
@media (max-width: 34rem) { th, td { padding: .35rem .3rem; white-space: normal; font-size: .85rem; }
  td small { font-size: .7rem; } }
pre { background: var(--card); padding: .8rem 1rem; overflow-x: auto; font-size: .9rem; }
svg { width: 100%; max-width: 28rem; height: auto; } .pair { display: flex; flex-wrap: wrap; gap: 1rem; }
"""


def curve(title: str, steps: Sequence[float], values: Sequence[float], colour: str) -> str:
    """A line chart as inline SVG in one of the page's colours, its first, last, lowest and highest value written.

    Args:
        title: What the values are.
        steps: At least one, ascending.
        values: As many, finite.
        colour: Name of a CSS variable.
    """
    low, high, last = min(values), max(values), max(steps)
    span, width = (high - low) or 1.0, (last - min(steps)) or 1.0
    points = " ".join(
        f"{50 + 360 * (step - min(steps)) / width:.1f},{160 - 120 * (value - low) / span:.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    text = '<text x="{}" y="{}" font-size="12" fill="var(--soft)" text-anchor="{}">{}</text>'
    return (
        f'<svg viewBox="0 0 420 190" role="img" aria-label="{escape(title)}: from {values[0]:.2f} to '
        f'{values[-1]:.2f}"><text x="50" y="18" font-size="14" fill="var(--ink)">{escape(title)}</text>'
        f'<path d="M50 30V165H412" fill="none" stroke="var(--line)"/>'
        f'<polyline points="{points}" fill="none" stroke="var({colour})" stroke-width="2"/>'
        + text.format(44, 44, "end", f"{high:.2f}")
        + text.format(44, 164, "end", f"{low:.2f}")
        + text.format(50, 182, "start", f"step {min(steps):g}")
        + text.format(412, 182, "end", f"{last:g}")
        + "</svg>"
    )


def score_table(results: dict[str, Any]) -> str:
    """Numbers of labelled scenes in rows, all arms in columns, gains over the random start with intervals."""
    counts, arms = [str(count) for count in results["labelled scenes"]], results["scores"]
    best = max(arms, key=lambda arm: arms[arm][counts[-1]])
    kinds = {arm: " class=best" if arm == best else "" for arm in arms}
    head = "".join(f"<th{kinds[arm]}>{escape(arm)}</th>" for arm in arms)
    rows = []
    for count in counts:
        cells = []
        for arm, scores in arms.items():
            gain = results["gains over the random start"].get(arm, {}).get(count)
            cells.append(f"<td{kinds[arm]}>{scores[count]:.1f}{gain_text(gain)}</td>")
        rows.append(f"<tr><td>{count} labelled scenes</td>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><tr><th>mIoU, %</th>{head}</tr>{"".join(rows)}</table></div>'


def gain_text(gain: dict[str, float] | None) -> str:
    """A gain in points with its interval, in HTML below the score; nothing for an arm that has none."""
    return f"<small>{gain['value']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})</small>" if gain else ""


def picture(path: Path) -> str:
    """A PNG as a data URI, so that the page is one file."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def write_page(results: dict[str, Any], panel: Path, curves: dict[str, list[float]], path: Path) -> Path:
    """Write the report.

    Args:
        results: As ``results.json`` holds them.
        panel: The picture.
        curves: ``step``, ``loss_ce`` and ``loss_rec`` of the live run.
        path: The page.

    Raises:
        UserError: It cannot be written.
    """
    charts = curve("match student to teacher (loss)", curves["step"], curves["loss_ce"], "--one")
    charts += curve("restore the picture (loss)", curves["step"], curves["loss_rec"], "--two")
    notes = "".join(f"<li>{escape(note)}</li>" for note in results["notes"])
    live = results["live run"]
    body = f"""
<h1>MST in five minutes: what a network learns from pictures without labels</h1>
<p class="verdict">{escape(results["verdict"])}</p>
<p>The scenes were drawn for this demonstration, by a program of this project. They are not photographs, and these
figures say nothing about photographs or about the figures of the MST paper.</p>
<h2>How well do frozen features tell what is where?</h2>
{score_table(results)}
<p class="soft">mIoU in per cent on {results["validation scenes"]} validation scenes, whose colours and spatial periods
occur in no scene that a network or a head has seen. Every number has the same head: a linear layer on each patch of
8 x 8 pixels, computed in closed form, in which every class has the same weight. Small: points above the random start,
with a 95 % interval from resampling the validation scenes in pairs.</p>
<ul class="soft">{notes}</ul>
<h2>What it looks like</h2>
<figure><div class="wide"><img src="{picture(panel)}" alt="Rows: validation scenes. Columns: the scene, the teacher's
attention, what the student sees, what it restores, the true classes, and the classes that the read-outs say"></div>
<figcaption>The student sees a picture in which the patches that the teacher attends to least are hidden (grey); it has
to match the teacher, who sees everything, and to restore the whole picture.</figcaption></figure>
<h2>The live run</h2>
<p>{live["steps"]:,} steps of {live["batch"]} pictures on {live["scenes"]:,} scenes in {live["seconds"]:.0f} seconds, on
this machine. The first loss may rise again: it measures the agreement with a teacher that changes too.</p>
<div class="pair">{charts}</div>
<h2>Go on with your own photographs</h2>
<pre>mst pretrain photos
mst finetune segmentation DATA --init runs/photos_vit-s
mst quickstart --full    # on to Mask R-CNN and UperNet</pre>
<p class="soft">Seed {results["seed"]}, {results["seconds"]:.0f} seconds in all. All figures: results.json beside this
page.</p>
"""
    write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><title>MST in five minutes</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n",
        path,
    )
    return path
