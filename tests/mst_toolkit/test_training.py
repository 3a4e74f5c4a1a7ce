"""What a friendly training call writes before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mst_toolkit as mst
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_toolkit import training

from .layouts import drawn_data as drawn

SHORT = dict(arch="vit_tiny", image_size=32, steps=3, batch_size=2, workers=0)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five photos, of which one is truncated; nothing is trained."""
    for number in range(5):
        drawn.picture(tmp_path / f"photos/{number}.png", number)
    broken = tmp_path / "photos/3.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    monkeypatch.setattr(training, "launch", lambda *_, **__: None)
    monkeypatch.setattr(training, "finish_pretraining", lambda _: None)
    return tmp_path / "photos"


def test_a_pretraining_skips_broken_photos(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training would stop at the broken photo, or nobody would learn that it was left out."""
    run = mst.pretrain(photos, out=photos.parent / "run", skip_broken=True, **SHORT)
    source = open_source(load_config(run / "config.py").data_root)
    source.check()
    assert [Path(source.name(index)).name for index in range(len(source))] == [
        f"{number}.png" for number in (0, 1, 2, 4)
    ]
    assert load_config(run / "config.py").train_dataloader.dataset.data_root == str(run / "images.txt")
    plan = json.loads((run / "plan.json").read_text())
    assert {one["key"]: one["value"] for one in plan["decisions"]}["images"] == 4
    assert plan["data"]["root"] == str(photos)
    told = f"left out by --skip-broken: {photos}/3.png: truncated PNG: no IEND chunk\n"
    assert (run / "train.log").read_text() == told
    assert "1 files that cannot be read are left out" in capsys.readouterr().out


def test_without_the_option_the_error_names_it(photos: Path) -> None:
    """Nobody would find the option."""
    with pytest.raises(UserError, match=r"3\.png \(truncated PNG.*mst pretrain .* with --skip-broken"):
        open_source(photos).check()


def test_a_refused_run_is_started_again_and_an_edited_one_is_kept(photos: Path) -> None:
    """After an error in the data the same command would meet "holds a run already", or an edited config be lost."""
    out = photos.parent / "run"
    mst.pretrain(photos, out=out, **SHORT)  # as if its training had been refused
    run = mst.pretrain(photos, out=out, skip_broken=True, **SHORT)
    config = run / "config.py"
    config.write_text(config.read_text() + "# mine\n")
    with pytest.raises(UserError, match="holds a run already"):
        mst.pretrain(photos, out=out, skip_broken=True, **SHORT)
