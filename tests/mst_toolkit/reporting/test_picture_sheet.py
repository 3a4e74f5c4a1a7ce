"""The sheet of pictures that needs no page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.data.decode import read_rgb
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.reporting.picture_sheet import draw_pictures, main
from mst_toolkit.reporting.pictures import load_pretraining, see_images
from tests.mst_toolkit.reporting.example_runs import pretraining_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a toy pretraining."""
    return pretraining_run(tmp_path_factory.mktemp("runs") / "photos_vit", 2)


def test_a_sheet_of_a_run_is_written(run: Path, tmp_path: Path) -> None:
    """The pictures of one's own images would need a page."""
    paths = sorted((run.parent / "photos_vit_photos").iterdir())[:2]
    for source in (run, run / "checkpoints/last.pth"):
        out = draw_pictures(source, paths, tmp_path / "sheet.png")
        with Image.open(out) as sheet:
            assert sheet.format == "PNG" and sheet.width > 5 * 200
    (seen, _) = see_images(load_pretraining(run), [read_rgb(path) for path in paths])
    with Image.open(out) as sheet:  # the first cell is the image, enlarged seven times
        cell = np.asarray(sheet)[24 : 24 + 7 * seen.image.shape[0] : 7, : 7 * seen.image.shape[1] : 7]
        assert np.array_equal(cell, seen.image)


def test_the_command_writes_the_sheet(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented command would not work, or ignore its options."""
    (photo, _) = sorted((run.parent / "photos_vit_photos").iterdir())
    out = tmp_path / "new/sheet.png"
    monkeypatch.setattr(sys, "argv", ["sheet", str(run), str(photo), "--out", str(out), "--short-side", "64"])
    assert main() == 0
    with Image.open(out) as sheet:
        assert sheet.height == 24 + 4 * 64  # 64 px, enlarged to about 224


def test_no_image_is_an_error(run: Path, tmp_path: Path) -> None:
    """An empty picture would be written."""
    with pytest.raises(UserError, match="no image to show"):
        draw_pictures(run, [], tmp_path / "a.png")
