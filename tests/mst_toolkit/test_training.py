"""What a friendly training call writes before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mst_toolkit as mst
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.errors import UserError
from mst_toolkit import training
from mst_toolkit.starts import find_start

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


def test_the_evaluator_follows_an_edited_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set would be read in the new place and scored by the annotations of the old one."""
    monkeypatch.setattr(training, "launch", lambda *_, **__: None)
    monkeypatch.setattr(training, "finish_finetuning", lambda _: None)
    drawn.roboflow(tmp_path / "data", polygons=False)
    length = dict(steps=3, batch_size=2, workers=0)
    run = mst.finetune(
        "detection", tmp_path / "data", init="random", arch="vit_tiny", out=tmp_path / "run", **length
    )
    before = load_config(run / "config.py")
    assert before.val_evaluator.ann_file == str(tmp_path / "data/valid/_annotations.coco.json")
    path = run / "config.py"
    path.write_text(path.read_text().replace(f"{tmp_path}/data/", f"{tmp_path}/moved"))
    after = load_config(path)
    for part in ("val", "test"):
        assert after[f"{part}_evaluator"].ann_file == str(tmp_path / "moved/valid/_annotations.coco.json")
        assert after[f"{part}_dataloader"].dataset.data_root == str(tmp_path / "moved")
        assert after[f"{part}_evaluator"].metric == before[f"{part}_evaluator"].metric
    for variable in ("steps=9", "learning_rate=0.1", "classes=[a]"):
        with pytest.raises(UserError, match=f"'{variable.split('=')[0]}' is a variable"):
            load_config(path, read_options(path, dict([variable.split("=")])))


def test_a_folder_with_one_checkpoint_is_a_start(tmp_path: Path) -> None:
    """The folder of the shipped checkpoint would be refused without the name of the file in it."""
    shipped = Path(__file__).parents[2] / "examples/quickstart/shipped"
    (file,) = shipped.glob("*.safetensors")
    folder, named = find_start(shipped), find_start(file)
    assert (folder.path, folder.sha256) == (file, named.sha256) and folder.architecture == named.architecture
    for name in ("b.pth", "a.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"2 checkpoints: a\.pth, b\.pth\. Name one: {tmp_path}/a\.pth"):
        find_start(tmp_path)
