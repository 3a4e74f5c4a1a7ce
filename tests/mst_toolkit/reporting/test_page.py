"""The page of a run: whole, safe, small, and without what the run does not have."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.reporting import write_report
from mst_toolkit.reporting.page import render, small_page
from mst_toolkit.reporting.shown import PagePart, PictureRow, Shown
from tests.mst_toolkit.reporting.example_runs import (
    HOSTILE,
    detection_data,
    finetuned_run,
    history,
    metrics,
    plan,
    pretraining_run,
    segmentation_data,
    write_run,
)
from tests.mst_toolkit.reporting.example_scores import detection_arrays, label_arrays, save_arrays

pytestmark = pytest.mark.usefixtures("one_thread")
VOID = {"meta", "link", "img", "input", "br"}
ALLOWED = {
    *(
        "html",
        "head",
        "title",
        "style",
        "body",
        "header",
        "main",
        "section",
        "footer",
        "nav",
        "h1",
        "h2",
        "h3",
        "p",
    ),
    *(
        "div",
        "span",
        "i",
        "a",
        "dl",
        "dt",
        "dd",
        "ul",
        "li",
        "table",
        "tr",
        "th",
        "td",
        "code",
        "figure",
        "figcaption",
    ),
    *("label", "svg", "defs", "g", "path", "use", "text", "clippath", "rect", "line", "circle", *VOID),
}


class Page(HTMLParser):
    """What a browser would find in a page: tags, attributes, texts; every tag closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.source = text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is read on the page."""
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of one name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def check_safe(self) -> None:
        """No script, no handler, no address outside the page; ids are unique."""
        assert {tag for tag, _ in self.tags} <= ALLOWED
        for tag, attributes in self.tags:
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href", "xlink:href", "srcset", "action"):
                address = attributes.get(name)
                assert (
                    address is None or address.startswith(("#", "data:image/jpeg;base64,")) or tag == "link"
                )
        assert [one["href"] for one in self.of("link")] == ["data:,"]
        assert "@import" not in self.source and "url(http" not in self.source
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        links = {one["href"].removeprefix("#") for one in self.of("a") if one["href"]}
        assert links <= set(ids)


def page_of(*runs: Path, out: Path | None = None) -> Page:
    """Write and read a report."""
    path = write_report(list(runs), out)
    assert path.stat().st_size <= 5_000_000
    page = Page(path.read_text(encoding="utf-8"))
    page.check_safe()
    return page


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detection run with everything."""
    folder = tmp_path_factory.mktemp("detection")
    record = {"versions": {"torch": "9.9"}, "device": "cpu", "batch": 16, "options": {"a.b": "<u>"}}
    run = finetuned_run(folder / "det", "detection", detection_data(folder / "data"), run=record)
    names = [f"<i>{number}&.png" for number in range(1, 10)]
    save_arrays(
        run / "per_image.npz",
        detection_arrays(names, [2, 2, 1, 1, 0, 2, 1, 0, 2], [0, 1, 0, 1, 2, 3, 4, 0, 0]),
    )
    return run


def test_a_detection_run_has_every_section(detector: Path) -> None:
    """A section that decides something would be missing, or in its place a sentence that it is not there."""
    page = page_of(detector)
    assert page.of("div")[1]["class"] == "verdict ok"
    assert "--starts random supervised runs/photos " in page.text
    assert "AP is 34.2 on 9 images (95 % interval 31.0 to 37.1); the trivial baseline" in page.text
    for wanted in (
        "mst detection data",
        "a.b=<u>",
        "9 of 9 training images with their labels drawn",
        "Learning rate",
    ):
        assert wanted in page.text
    for wanted in (
        "The best",
        "In the middle",
        "The worst",
        "<i>1&.png (100)",
        "fits <script>alert(1)</script>",
    ):
        assert wanted in page.text
    assert f"mst predict {detector} PHOTOS --out predictions" in page.text and "torch 9.9" in page.text
    assert re.search(r"checkpoints/best.pth [0-9a-f]{64}", page.text)
    assert "The scores are of a checkpoint that is not in this folder any more" in page.text
    assert len(page.of("img")) == 9 + 2 * 9
    left = [text for text in page.texts if "left out" in text]
    assert left == [
        "The confusion matrix is left out: per_image.npz has no pairs of classes. mst evaluate writes it."
    ]


def test_scores_of_the_checkpoint_that_is_there(tmp_path: Path) -> None:
    """Scores of an earlier training in the same folder would be taken for this one's."""
    from mst_pretrain.runtime.atomic import file_sha256
    from mst_toolkit.reporting.facts_shown import versions
    from mst_toolkit.reporting.reported_run import read_run

    run = write_run(tmp_path / "a", plan=plan("detection"), metrics=metrics("detection"))
    (run / "checkpoints").mkdir()
    (run / "checkpoints/best.pth").write_bytes(b"weights")
    assert len(versions(read_run(run)).sentences) == 1
    write_run(run, metrics=metrics("detection", sha256=file_sha256(run / "checkpoints/best.pth")))
    assert versions(read_run(run)).sentences == []


def test_names_of_classes_and_files_are_text(detector: Path) -> None:
    """A class or a file called like a script would run in the browser of whoever opens the report."""
    page = page_of(detector)
    assert HOSTILE in page.text and HOSTILE not in page.source
    assert "<script" not in page.source and "<i>1" not in page.source


def test_pictures_are_those_of_truth_and_prediction(detector: Path) -> None:
    """A picture could be damaged, or truth and prediction the same one."""
    sources = [one["src"] for one in page_of(detector).of("img")]
    images = [Image.open(io.BytesIO(base64.b64decode(str(source).partition(",")[2]))) for source in sources]
    assert all(image.format == "JPEG" and max(image.size) <= 480 for image in images)
    truth, prediction = (np.asarray(image).astype(int) for image in images[9:11])
    assert truth.shape == prediction.shape and np.abs(truth - prediction).max() > 50


def test_a_segmentation_run(tmp_path: Path) -> None:
    """The confusion matrix would be missing, or its rows would not be the truth."""
    run = finetuned_run(tmp_path / "seg", "segmentation", segmentation_data(tmp_path / "data"))
    matrices = np.tile(np.array([[3000, 1000], [24, 72]]), (9, 1, 1))
    names = [f"scene_{number}.png" for number in range(1, 10)]
    save_arrays(run / "per_image.npz", label_arrays(names, matrices, ["background", HOSTILE]))
    page = page_of(run)
    cells = [one.get("style") for one in page.of("td") if one.get("class") == "cell"]
    assert cells == ["--share: 0.58", "--share: 0.19", "--share: 0.19", "--share: 0.58"]
    assert f"background {HOSTILE} 25.0" in page.text
    assert len(page.of("img")) == 9 + 2 * 9


def test_a_pretraining_run(tmp_path: Path) -> None:
    """A pretraining, which has no score, would have nothing to look at."""
    page = page_of(pretraining_run(tmp_path / "pre"))
    assert "no score has been measured" in page.text and "7 of 7 images, without labels" in page.text
    assert "50 % of the patches" in page.text and "No sign of collapse" in page.text
    assert len(page.of("img")) == 7 + 5 * 5 + 6 * 6
    assert "mst probe knn" in page.text


def test_what_a_run_lacks_is_said_in_a_sentence(tmp_path: Path) -> None:
    """Empty boxes would look like a fault of the page, and a missing evaluation like a bad one."""
    page = page_of(write_run(tmp_path / "bare", plan={"task": "detection"}))
    for wanted in (
        "No training was recorded",
        "Curves are left out",
        "Scores are left out: there is no metrics.json. mst evaluate writes it.",
        "Pictures of the data are left out",
        "Pictures of truth beside prediction are left out: the run has no checkpoints/best.pth or last.pth.",
        "Decisions are left out",
        "Versions are left out",
        "Checksums are left out",
        "What the data are is left out",
    ):
        assert wanted in page.text
    assert page.of("img") == page.of("svg") == page.of("table") == []


def test_moved_data_cost_the_pictures_alone(detector: Path, tmp_path: Path) -> None:
    """A report could not be written on another machine than the training's."""
    run = tmp_path / "moved"
    text = (detector / "config.py").read_text().replace(str(detector.parent / "data"), str(tmp_path / "gone"))
    write_run(run, text, history(), plan=plan("detection"), metrics=metrics("detection"))
    (run / "checkpoints").mkdir()
    (run / "checkpoints/best.pth").write_bytes((detector / "checkpoints/best.pth").read_bytes())
    page = page_of(run)
    assert "AP is 34.2" in page.text and page.of("img") == []
    assert page.text.count("gone") >= 2 and "Pictures of the data are left out" in page.text


def test_pictures_shrink_until_the_page_is_small_enough() -> None:
    """A page of many photographs could not be sent by mail."""
    rng = np.random.default_rng(0)
    noise = [Shown(Image.fromarray(rng.integers(0, 256, (480, 480, 3)).astype(np.uint8))) for _ in range(60)]
    nothing: dict[str, Any] = {
        "told": [],
        "scores": PagePart(),
        "classes": PagePart(),
        "decisions": PagePart(),
        "panels": [],
    }
    nothing |= {"title": "t", "task": "detection", "warnings": [], "health": [], "facts": []}
    content = {**nothing, "pictures": PagePart(rows=[PictureRow(noise)])}
    assert len(render("comparison.html.j2", content, 480, 82)) > 5_000_000
    page = small_page("comparison.html.j2", content)
    assert 1_000_000 < len(page.encode()) <= 5_000_000
    assert len(Page(page).of("img")) == 60


def test_where_a_report_is_written(tmp_path: Path) -> None:
    """A report would overwrite another file, or be looked for in vain."""
    run = write_run(tmp_path / "runs/a", plan={"task": "detection"})
    assert write_report([run]) == run / "report.html"
    assert write_report([str(run)], tmp_path / "new/x.html") == tmp_path / "new/x.html"
    assert write_report([run], tmp_path / "other") == tmp_path / "other/report.html"
    with pytest.raises(UserError, match="there is no run to report"):
        write_report([])


@pytest.mark.parametrize(("name", "said"), [("jinja2", True), ("matplotlib", True), ("mst_toolkit", False)])
def test_a_missing_package_is_named(name: str, said: bool, tmp_path: Path) -> None:
    """A core installation would end in a traceback; a fault of our own must not be called a missing package."""
    blocked = "mst_toolkit.reporting.shown" if name == "mst_toolkit" else name
    code = f"import sys; sys.modules[{blocked!r}] = None; import mst_toolkit.reporting as r; r.write_report(['x'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert (f"UserError: a report needs {name}. Install it: pip install" in done.stderr) == said
    assert done.returncode == 1


def test_importing_the_package_imports_nothing_heavy() -> None:
    """The help of every command would wait for torch."""
    code = "import sys, mst_toolkit.reporting; print({'torch', 'jinja2', 'numpy', 'mmengine'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_wheel_gets_the_templates() -> None:
    """An installed package could not write a page."""
    import mst_toolkit.reporting.page as page

    root = Path(__file__).parents[3]
    patterns = re.findall(
        r'^"mst_toolkit.reporting" = \["([^"]+)"\]$',
        (root / "pyproject.toml").read_text(),
        flags=re.MULTILINE,
    )
    found = {path for pattern in patterns for path in (root / "mst_toolkit/reporting").glob(pattern)}
    names = {path.name for path in found}
    assert {"run.html.j2", "comparison.html.j2", "frame.html.j2", "parts.html.j2", "style.css"} <= names
    assert found == set(page.TEMPLATES.iterdir())
