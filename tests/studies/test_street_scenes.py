"""The street-scene comparison goes through, is not repeated, and refuses runs that were not alike."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope

from examples.quickstart import street
from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from studies import street_scenes
from studies.parts.jobs import ROOT, Jobs
from studies.parts.street_report import UPERNET
from studies.street_scenes import WEIGHTS, main

SHORT = ["train_cfg.max_iters=2", "train_dataloader.batch_size=2", "optim_wrapper.dtype=None"]


def test_a_process_that_fails(tmp_path: Path) -> None:
    """A failed run would count as finished."""
    jobs, log = Jobs(), tmp_path / "log"
    jobs.call(["-c", "print('said')"], log)
    assert log.read_text() == "said\n"
    with pytest.raises(UserError, match="ended with code 3"):
        jobs.call(["-c", "raise SystemExit(3)"], log)


def test_a_run_of_other_options_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial of two steps in the same folder would stand in the table as the whole length."""
    calls = []
    monkeypatch.setattr(Jobs, "call", lambda *call: calls.append(call))
    jobs = Jobs()
    for _ in range(2):
        jobs.once("train", ["--max", "2"], tmp_path)
    assert len(calls) == 1
    with pytest.raises(UserError, match=r"run of other options.*--out"):
        jobs.once("train", ["--max", "9"], tmp_path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was called, each in this process instead of one of its own."""
    called: list[list[str]] = []

    def call(self: Jobs, arguments: list[str], log: Path) -> None:
        called.append(arguments)
        for registry in (MMLogger, MessageHub, DefaultScope):  # as a new process would have them
            registry._instance_dict.clear()
        runpy.run_path(str(ROOT / arguments[0]))["main"](arguments[1:])

    monkeypatch.setattr(street_scenes.Jobs, "call", call)
    return called


@pytest.fixture
def real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawn scenes in the place of CamVid; its test frames are the val frames."""
    street.generate(tmp_path / "drawn", seed=1, train=4, val=2, height=60, width=80)
    root = tmp_path / "camvid-as-cityscapes"
    shutil.copytree(tmp_path / "drawn/cityscapes", root)
    for folder in ("leftImg8bit", "gtFine"):
        shutil.copytree(root / folder / "val", root / folder / "test")
    monkeypatch.setenv("MST_REAL_DATA", str(tmp_path))
    return root


def test_the_whole_comparison(
    real_data: Path,
    calls: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stage would not run, or run twice, or from other weights; runs that were not alike would be compared."""
    monkeypatch.setattr(street_scenes, "SEEDS", (2,))
    monkeypatch.setattr(street_scenes, "SPLITS", ("test",))
    out = tmp_path / "out"
    whole = ["--out", str(out), "--cfg-options", *SHORT]
    main(whole)
    tools = [call[0] for call in calls]
    assert tools == ["tools/train.py"] * 2 + ["tools/train.py", "tools/test.py"] * 3
    report = json.loads((out / "report.json").read_text())
    text = (out / "report.md").read_text()
    assert "nothing is left" in capsys.readouterr().out

    seed_dirs = {row: out / f"upernet/{row.lower()}/seed2" for row in WEIGHTS}
    starts = {
        row: file_sha256(out / "pretrain" / arm.folder / "seed2" / checkpoint)
        for row, (arm, checkpoint) in WEIGHTS.items()
    }
    assert len(set(starts.values())) == 3 and starts["MST"][:12] in text
    (table,) = report["tables"]
    assert table["task"].startswith("CamVid test") and "data_prefix" not in text
    for row, entry in zip(WEIGHTS, table["rows"], strict=True):
        (run,) = entry["cells"][0]["runs"]
        assert entry["initialisation"] == row and run["run"]["init_sha256"] == starts[row]
        measured = json.loads((seed_dirs[row] / "test/test_metrics.json").read_text())
        (value,) = entry["cells"][0]["metrics"]["mIoU"]["values"]
        assert value == measured["mIoU"]
        assert report["classes"]["test"][row]["mean"]["mean"] == pytest.approx(value)
    classes = load_config(UPERNET).classes
    assert tuple(report["classes"]["test"]["random"]) == (*classes, "mean") and len(classes) == 11
    nothing = {"mean": None, "spread": None, "n": 0, "values": []}
    assert report["classes"]["test"]["position prior"]["pole"] == nothing
    assert (report["pretraining"]["steps"], report["pretraining"]["images"]) == (2, 4)
    masks = [[word for word in call if "masking.mode" in word] for call in calls[:2]]
    assert masks == [["+model.masking.mode=none"], ["+model.masking.mode=attention"]]

    calls.clear()
    shutil.rmtree(seed_dirs["DINO"] / "test")
    main(whole)
    assert [call[0] for call in calls] == ["tools/test.py"]

    def refused(path: Path, content: bytes, message: str) -> None:
        """The report is not written while a file holds something else."""
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            main([*whole, "--report"])
        path.write_bytes(before)

    (path,) = (seed_dirs["MST"] / "test/results").glob("*.json")
    record = json.loads(path.read_text())
    record["run"]["options"]["optim_wrapper.optimizer.lr"] = 0.1
    refused(path, json.dumps(record).encode(), "optim_wrapper.optimizer.lr=0.1")
    arm, checkpoint = WEIGHTS["MST"]
    trained = out / "pretrain" / arm.folder / "seed2" / checkpoint
    refused(trained, trained.with_name("initial.pth").read_bytes(), "differ in steps")
    begun = trained.with_name("initial.pth")
    refused(begun, trained.read_bytes(), "began with different backbones")
    record["run"]["options"].pop("optim_wrapper.optimizer.lr")
    record["run"]["init_sha256"] = starts["DINO"]
    refused(path, json.dumps(record).encode(), "was not trained from")
    main([*whole, "--report"])
