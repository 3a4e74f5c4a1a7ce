"""The five-minute demonstration at toy length, as a newcomer runs it and without what it says it does not need."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples.quickstart import demo
from examples.quickstart.arms import LIVE, MODEL, MODEL_ARGS, RANDOM, SHIPPED
from examples.quickstart.page import curve
from examples.quickstart.tasks import time_left
from mst_pretrain.checkpoints.storage import save_safetensors
from mst_pretrain.method.backbones import build_trunk

ROOT = Path(__file__).parents[2]
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mmdet", "mmseg", "mmcv", "pycocotools", "jinja2"):
            raise ModuleNotFoundError(f"{name} must not be imported")
sys.meta_path.insert(0, Absent())
"""
SMALL = """
import runpy, sys
from pathlib import Path
from examples.quickstart import demo
demo.size_here = lambda: demo.DemoSize(scenes=32, steps=3, workers=0, labelled=(2, 3), val=4)
demo.Demonstration.__init__.__defaults__ = (1, None, Path(sys.argv[2]))
sys.argv = ["quickstart.py", "--out", sys.argv[1], "--seed", "4"]
runpy.run_path("tools/quickstart.py", run_name="__main__")
"""


def test_whole_demonstration(tmp_path: Path) -> None:
    """The README's first command would fail, need mmdet, or show other figures than it wrote."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(ABSENT)  # of the live run's process too
    shipped = tmp_path / "shipped.safetensors"
    meta = {"architecture": MODEL, "model_args": json.dumps(MODEL_ARGS)}
    torch.manual_seed(4)
    save_safetensors(build_trunk(MODEL, **MODEL_ARGS).state_dict(), shipped, meta)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(tmp_path / "out"), str(shipped)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["scores"]) == ["raw pixels", "position prior", RANDOM, LIVE, SHIPPED]
    # the shipped file holds the random start of this seed: equal scores, a difference of nothing
    assert results["scores"][SHIPPED] == results["scores"][RANDOM]
    assert results["gains over the random start"][SHIPPED]["3"] == {"value": 0, "low": 0, "high": 0}
    assert results["live run"]["steps"] == 3 and results["seed"] == 4
    assert "| raw pixels | position prior | " in done.stdout
    for count in ("2", "3"):
        cells = r" \| ".join(rf"{scores[count]:.1f}(?: \([^)]*\))?" for scores in results["scores"].values())
        assert re.search(rf"^\| {count} labelled scenes \| {cells} \|$", done.stdout, re.MULTILINE), (
            done.stdout
        )
    for stage in ("[1/4] drawing scenes: 32 unlabelled", "[2/4] MST pretraining: step ", "[4/4] picture"):
        assert stage in done.stdout
    assert (tmp_path / "out/quickstart.png").stat().st_size > 50_000
    page = (tmp_path / "out/report.html").read_text()
    assert "The scenes were drawn for this demonstration" in page and "prefers-color-scheme: dark" in page
    assert re.search(rf"<td[^>]*>{results['scores'][SHIPPED]['3']:.1f}<small>", page)
    assert page.count("<th") == 1 + len(results["scores"]) and page.count("<svg") == 2
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith("data:") for source in sources)  # nothing from a network


def test_without_the_shipped_file_the_notes_say_so(tmp_path: Path) -> None:
    """A row would be missing from the table and nobody told why; or a failed criterion be passed over."""
    assert any("no shipped checkpoint" in note for note in demo.notes(tmp_path / "none"))
    file, judged = tmp_path / "file", tmp_path / "judged.json"
    file.touch()
    gains = [
        {count: {"value": value} for count, value in (("20", 4.5 + i), ("320", 7.0 - i))} for i in (0, 1)
    ]
    seeds = {str(11 + i): {"gains over the random start": gain} for i, gain in enumerate(gains)}
    recorded = {"seeds": seeds, "met": False, "criterion": "six points"}
    judged.write_text(json.dumps(recorded))
    (note,) = (note for note in demo.notes(file, judged) if "Recorded" in note)
    assert (
        "chose nothing (11, 12); seeds 1 to 3 chose" in note
        and "The criterion (six points) was NOT met." in note
    )
    assert "+4.5 to +5.5 points with 20 labelled scenes, +6.0 to +7.0 points with 320" in note
    assert (
        "24.3 % mIoU, random weights 19.2, the position prior 16.7" in note
    )  # studies/mask_study_cpu/report.md
    judged.write_text(json.dumps(recorded | {"met": True}))
    (note,) = (note for note in demo.notes(file, judged) if "Recorded" in note)
    assert note.endswith("(six points) was met.")


def test_time_left_follows_the_stage() -> None:
    """The time left would stay at "about 9 minutes" for a quarter of an hour."""
    # a stage planned for 100 s that is half done after 300 s takes 300 s more; a later one takes longer
    # than its 50 s too, up to the 6 times that this one takes
    assert time_left(300, 0.5, 100, 0, 0, 0) == pytest.approx(300)
    assert 400 < time_left(300, 0.5, 100, 50, 0, 0) <= 600
    assert time_left(0, 0, 100, 50, 0, 0) == pytest.approx(150)  # nothing known yet: the plan
    assert time_left(10, 1, 10, 0, 90, 90) == 0


def test_curve_is_drawn_to_scale() -> None:
    """The report would show a falling loss as a rising one."""
    points = re.findall(r"points=\"([^\"]+)", curve("loss", [10, 20, 30], [3, 1, 2], "--one"))[0].split()
    assert points == ["50.0,40.0", "230.0,160.0", "410.0,100.0"]
    assert "nan" not in curve("flat", [10], [1], "--one")
