"""What is shipped: whole, small, of a finished run, beside a card that says what it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.quickstart import ship as shipping
from examples.quickstart.arms import RANDOM, SHIPPED, pretrained_trunk
from examples.quickstart.ship import ship
from mst_pretrain.method.backbones import build_trunk
from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.errors import UserError

ARGUMENTS: dict[str, Any] = dict(img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    """What a pretraining of 200 steps leaves, with a network of width 32; its first 100 steps ran twice."""
    folder = tmp_path / "run"
    for name, steps in (("20260101_000000", (50, 100)), ("20260101_010000", (100, 150, 200))):
        log = folder / name / "vis_data"
        log.mkdir(parents=True)
        (log / "config.py").write_text("train_cfg = dict(max_iters=200)\n")
        lines = [dict(step=step, loss_ce=5 - step / 100, loss_rec=1 / step, time=0.3) for step in steps]
        (log / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save(folder, 200)
    return folder


def save(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Write the run's checkpoint; the teacher's weights."""
    torch.manual_seed(step)
    teacher = build_trunk("vit_tiny_patch16_224", **ARGUMENTS).state_dict()
    state = {f"teacher.backbone.{name}": value for name, value in teacher.items()}
    state |= {f"student.backbone.{name}": value + 1 for name, value in teacher.items()}
    meta = {"iter": step, "architecture": "vit_tiny_patch16_224", "model_args": json.dumps(ARGUMENTS)}
    torch.save({"state_dict": state, "meta": meta | {"data": "/home/somebody"}}, folder / "latest.pth")
    return teacher


def test_the_teacher_is_shipped_whole(work_dir: Path, tmp_path: Path) -> None:
    """The demonstration would measure the student, or a part, or the card describe another file."""
    target = ship(work_dir, tmp_path / "shipped")
    shipped, teacher = pretrained_trunk(target).state_dict(), save(work_dir, 200)
    assert shipped.keys() == teacher.keys()
    assert all(torch.equal(shipped[name], value) for name, value in teacher.items())
    assert b"/home/somebody" not in target.read_bytes()
    text = (tmp_path / "shipped/README.md").read_text()
    assert file_sha256(target) in text and "200 steps of 16 pictures" in text and "Not judged yet." in text
    lines = gzip.decompress((tmp_path / "shipped" / shipping.LOG).read_bytes()).decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [50, 100, 150, 200]
    before = target.read_bytes()
    ship(work_dir, tmp_path / "shipped")
    assert target.read_bytes() == before


def test_a_large_file_is_refused(work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository and every wheel would carry it for ever."""
    with pytest.raises(UserError, match="8,000,001 bytes"):
        file = tmp_path / "large"
        with open(file, "wb") as stream:
            stream.truncate(8_000_001)
        shipping.refuse_large(file)
    monkeypatch.setattr(shipping, "LIMIT", 1000)
    with pytest.raises(UserError, match="at most 1,000 are shipped"):
        ship(work_dir, tmp_path / "shipped")
    assert list((tmp_path / "shipped").iterdir()) == []


def test_an_unfinished_run_is_refused(work_dir: Path, tmp_path: Path) -> None:
    """A checkpoint from the middle of a schedule would be published as the result."""
    save(work_dir, 150)
    with pytest.raises(UserError, match="step 150 of 200"):
        ship(work_dir, tmp_path / "shipped")
    with pytest.raises(UserError, match="does not exist"):
        ship(tmp_path / "nothing", tmp_path / "shipped")


def test_the_card_publishes_the_table_of_this_file_whatever_it_shows(work_dir: Path, tmp_path: Path) -> None:
    """A failed criterion would be passed over, or another checkpoint's table stand beside this one."""
    target = ship(work_dir, tmp_path / "shipped")
    scores = {arm: {"20": 10.0, "320": 12.5} for arm in ("raw pixels", "position prior", RANDOM, SHIPPED)}
    gains = {count: {"value": 0.0, "low": -1.0, "high": 1.0} for count in ("20", "320")}
    judged = {
        "sha256": file_sha256(target),
        "criterion": "six points",
        "validation scenes": 200,
        "ridge": 0.1,
        "weak ridge": 0.001,
        "seeds": {
            "11": {
                "scores": scores,
                "gains over the random start": gains,
                "scores with the weak ridge": {arm: {"20": 8.0} for arm in scores},
            }
        },
        "failures": ["seed 11: too low"],
        "met": False,
    }
    table = tmp_path / "judged.json"
    table.write_text(json.dumps(judged))
    ship(work_dir, tmp_path / "shipped", table)
    text = (tmp_path / "shipped/README.md").read_text()
    assert "The criterion was NOT met:\n- seed 11: too low" in text
    assert "| 11 | 320 | 12.5 | 12.5 | 12.5 | 12.5 | +0.0 (-1.0 to +1.0) |" in text
    assert "0.001 instead of 0.1" in text and "| 20 | 8.0 | 8.0 | 8.0 | 8.0 |" in text
    assert json.loads((tmp_path / "shipped/judged.json").read_text()) == judged
    table.write_text(json.dumps(judged | {"sha256": "0" * 64}))
    with pytest.raises(UserError, match="judges another file"):
        ship(work_dir, tmp_path / "shipped", table)
