"""The dry run of a config: a healthy one, and one with each of the faults that end a run in its first hour or later."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mst_pretrain.method.mst import MST
from mst_pretrain.runtime import work_dir
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.preflight import rehearsal, steps
from tests.end_to_end.in_process import tool


@pytest.fixture
def dry(toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], one_thread: None) -> Any:
    """Calls ``tools/train.py --dry-run`` on the toy config; gives exit code and output."""

    def call(*options: str) -> tuple[int, str]:
        words = ["--cfg-options", *options] if options else []
        report = tmp_path / "report.json"
        code = tool("train").main(
            [str(toy), "--dry-run", "--work-dir", str(tmp_path / "run"), "--report", str(report), *words]
        )
        assert not list(tmp_path.glob(".mst-doctor-*")) and not (tmp_path / "run").exists()
        text = capfd.readouterr().out
        assert json.loads(report.read_text())["faults"] == faults_in(text)
        return code, text

    return call


def faults_in(text: str) -> int:
    """Lines of faults in an output."""
    return len(re.findall(r"^.{7} FAULT ", text, re.MULTILINE))


def test_a_healthy_config(dry: Any, tmp_path: Path) -> None:
    """A run that is well would be refused, or its length be a guess: 17 images in batches of 4, 5 epochs."""
    code, text = dry("train_dataloader.num_workers=1", "train_dataloader.persistent_workers=True")
    assert code == 0, text
    assert "Data    ok    17 images; 17 read, decoded and augmented" in text
    assert (
        "8 steps on CPU" in text and "read back in" in text and "the run: 20 iterations of 4 images" in text
    )
    assert (
        re.search(r"shared memory: \d+ KiB for the batches of 1 worker,", text)
        and "file handles: about" in text
    )
    measured = json.loads((tmp_path / "report.json").read_text())["measured"]
    assert measured["iterations"] == 20 and measured["processes"][0]["checkpoint"] > 10_000
    assert measured["hours"] == pytest.approx(
        (20 * measured["iteration_seconds"] + measured["processes"][0]["write_seconds"]) / 3600
    )


def test_a_missing_folder(dry: Any) -> None:
    """The first hour would be waited for to learn that a path is wrong."""
    code, text = dry("data_root=/nowhere", "train_dataloader.dataset.data_root=/nowhere")
    assert code == 1 and re.search(r"Config  FAULT .*/nowhere", text) and "Steps" not in text


def test_a_broken_image(dry: Any, toy: Path, images: Path, tmp_path: Path) -> None:
    """Images that nobody can read would be found one by one while training."""
    shutil.copytree(images, tmp_path / "photos")
    (tmp_path / "photos/03.jpg").write_bytes(b"no image")
    root = f"train_dataloader.dataset.data_root={tmp_path / 'photos'}"
    _, text = dry(root, "train_dataloader.dataset.check=False")
    assert "warn  1 of 17 images that were tried cannot be used" in text and "03.jpg" in text


def test_a_full_disk(dry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first checkpoint would be lost with all that was computed before it."""
    usage = SimpleNamespace(total=2**30, used=2**30, free=1000)
    monkeypatch.setattr(work_dir.shutil, "disk_usage", lambda path: usage)
    code, text = dry()
    assert code == 1 and re.search(r"Steps   FAULT .*0 MiB are free, and one checkpoint takes", text)


def test_a_folder_that_cannot_be_written(dry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run would begin, and its first checkpoint fail."""

    def refuse(here: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(steps, "shared_folder", refuse)
    code, text = dry()
    assert code == 1 and "cannot be written (Permission denied). Give another folder: --work-dir DIR" in text


def test_too_little_shared_memory(dry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker would be killed by a bus error; here no step is made that would die of it."""
    usage = SimpleNamespace(total=64 * 2**20, used=64 * 2**20 - 4096, free=4096)
    monkeypatch.setattr(steps.shutil, "disk_usage", lambda path: usage)
    code, text = dry("train_dataloader.num_workers=1")
    assert (
        code == 1 and re.search(r"Limits  FAULT shared memory: .*--shm-size=1g", text) and "Steps" not in text
    )


@pytest.mark.parametrize("limit", [1, 2])
def test_too_large_a_batch(dry: Any, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A batch that fits would have to be found by trials of a whole start each."""
    original = MST.loss

    def loss(self: Any, global_views: Any, *args: Any) -> Any:
        if len(global_views[0]) > limit:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 8 GiB. More"
            )
        return original(self, global_views, *args)

    monkeypatch.setattr(MST, "loss", loss)
    code, text = dry()
    fits = "(2 images fit: tried)" if limit == 2 else "(although not even 2 images fitted)"
    assert code == 1 and "Steps   FAULT Step 1 ran out of memory" in text and fits in text
    assert "train_dataloader.batch_size=2 train_cfg.accumulate=2" in text and "2.00 GiB more" in text


def test_a_checkpoint_that_is_read_differently(dry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses bits would be found when the run is resumed."""
    original = rehearsal.load_checkpoint

    def load(path: Path) -> dict[str, Any]:
        loaded = original(path)
        next(iter(loaded["state_dict"].values())).flatten()[0] += 1
        return loaded

    monkeypatch.setattr(rehearsal, "load_checkpoint", load)
    code, text = dry()
    assert code == 1 and "the disk of the work directory cannot be trusted" in text


def test_a_loss_that_is_not_finite() -> None:
    """A learning rate that destroys the network in two steps would be found in the log of the next morning."""
    hook = rehearsal.RehearsalHook(8)
    hook.before_train(None)
    hook.after_train_iter(None, 0, outputs={"loss": torch.tensor(1.0)})
    with pytest.raises(UserError, match=r"the loss of step 2 is nan\. Lower optim_wrapper\.optimizer\.lr"):
        hook.after_train_iter(None, 1, outputs={"loss": torch.tensor(torch.nan)})
