"""Curves that the page colours."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mst_toolkit.reporting.curves import CurveLine, draw_panel, panels, shared_panels, thinned
from mst_toolkit.reporting.reported_run import ReportedRun
from tests.mst_toolkit.reporting.example_runs import history


def run_of(name: str = "a") -> ReportedRun:
    """A run with losses, a loss scale and two validations."""
    lines = [{**line, "loss_cls": 0.5, "loss_scale": 1024.0, "kl": 0.1} for line in history()]
    evals = [{"step": step, "stage": "eval", "AP": float(step), "best": True} for step in (200, 400)]
    return ReportedRun(Path(name), "detection", training=lines, validations=evals)


def test_colours_are_the_pages() -> None:
    """A curve would be black on black in the dark, or need a font."""
    panel = draw_panel('a < "b"', [CurveLine("x", [1, 2], [3, 4]), CurveLine("y", [1, 2], [4, 3], 1)], "p")
    assert panel is not None
    svg = str(panel.svg)
    assert "stroke: var(--c0)" in svg and "stroke: var(--c1)" in svg and "currentColor" in svg
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
    assert "font-family" not in svg and "<style" not in svg and "<metadata" not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a < "b"' and root.get("width") is None and root.get("viewBox")


def test_ids_are_unique_on_the_page() -> None:
    """One picture's clip path would cut another's curve."""
    found = [
        *panels(run_of(), "one"),
        *panels(run_of(), "two"),
        *shared_panels([run_of(), run_of("b")], ["a", "b"]),
    ]
    svgs = [str(panel.svg) for panel in found]
    ids = [name for svg in svgs for name in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids)) > 50
    for svg in svgs:
        own = set(re.findall(r'\bid="([^"]+)"', svg))
        used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert used and {one or other for one, other in used} <= own


def test_every_recorded_curve_is_drawn() -> None:
    """A number that a run recorded would be missing, or a loss scale of thousands would flatten the loss."""
    found = {panel.title: [label for label, _ in panel.legend] for panel in panels(run_of())}
    assert found == {
        "Loss": ["loss", "loss_cls"],
        "Score in the validations, %": ["AP"],
        "Learning rate": ["lr"],
        "Images per second": ["images_per_second"],
        "Waiting for images, share of the time": ["data_share"],
        "Teacher: entropy and KL to the student": ["kl"],
    }


def test_runs_share_a_panel() -> None:
    """The legend of a comparison would name the wrong run."""
    other = ReportedRun(Path("b"), "detection", training=history())
    loss, score = shared_panels([run_of(), other], ["first", "second"])
    assert loss.legend == (("first", 0), ("second", 1))
    assert score.legend == (("first", 0),)


def test_long_curves_are_averaged() -> None:
    """A run of a million steps would fill the page; a mean keeps the level of a noisy loss."""
    steps, values = thinned(range(30_000), np.tile([1.0, 3.0], 15_000))
    assert len(steps) == len(values) == 300
    assert np.all(values == 2.0) and steps[0] == 49.5
    steps, values = thinned([1, 2], [5.0, 7.0])
    assert steps.tolist() == [1, 2] and values.tolist() == [5, 7]


def test_nothing_is_drawn_of_nothing() -> None:
    """An empty box would stand on the page."""
    assert draw_panel("Loss", [CurveLine("x", [], [])], "p") is None
    assert panels(ReportedRun(Path("a"), "detection")) == []


def test_knn_and_rankme_are_curves_of_their_own() -> None:
    """A number of directions would be drawn on the scale of per cent, or a pretraining's measurements be left out."""
    evals = [
        {"step": step, "stage": "eval", "knn": 20.0, "rankme": 90.0, "best": True} for step in (200, 400)
    ]
    run = ReportedRun(Path("a"), "pretrain", training=history(), validations=evals)
    found = {panel.title: [label for label, _ in panel.legend] for panel in panels(run)}
    assert found["Score in the validations, %"] == ["knn"]
    assert found["RankMe: directions that the features use"] == ["rankme"]
    shared = {
        panel.title: [label for label, _ in panel.legend] for panel in shared_panels([run, run], ["a", "b"])
    }
    assert shared["RankMe: directions that the features use"] == ["a", "b"]
