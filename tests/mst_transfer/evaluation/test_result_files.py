"""Every file of results is at every moment the whole old one or the whole new one."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from examples.quickstart import sheet
from mst_pretrain.evaluation.ranks import save_arrays
from mst_pretrain.evaluation.trunk import Origin
from mst_pretrain.runtime import environment
from mst_transfer.comparison import table as comparison
from mst_transfer.evaluation import SegmentationScores, dense_probe
from mst_transfer.evaluation.report import draw_confusion, write_confusion_csv, write_metrics

ROOT = Path(__file__).parents[3]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores() -> SegmentationScores:
    return SegmentationScores(np.array([[3, 1], [0, 2]]), ("road", "sky"))


def arrays(path: Path) -> None:
    save_arrays({"labels": np.arange(3)}, str(path))


def picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"path": folder, "truth": np.zeros((2, 2, 3)), "prediction": np.zeros((2, 2, 3))}]
    for name in ("_segmentation", "_detection"):
        monkeypatch.setattr(sheet, name, lambda *_: rows)
    monkeypatch.setattr(sheet, "_pretraining", lambda *_: [])
    sheet.draw_sheet(folder)


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "test_metrics.json": lambda folder, _: write_metrics({"mIoU": 50.0}, folder),
    "confusion_matrix.csv": lambda folder, _: write_confusion_csv(scores(), folder / "confusion_matrix.csv"),
    "confusion_matrix.png": lambda folder, _: draw_confusion(scores(), folder / "confusion_matrix.png"),
    "comparison.md": lambda folder, _: comparison.write([], ["a: not tested"], folder),
    "comparison.json": lambda folder, _: comparison.write([], ["a: not tested"], folder),
    "quickstart.png": picture,
    "features.npz": lambda folder, _: arrays(folder / "features.npz"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_killed_writer_leaves_the_old_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed while it writes its results would leave half a file in place of an older run's whole one."""
    target = tmp_path / name
    target.write_bytes(b"old and whole")
    replaced: list[bytes] = []

    def killed(source: str | Path, destination: str | Path) -> None:
        if Path(destination) == target:
            replaced.append(Path(source).read_bytes())
            raise KeyboardInterrupt
        replace(source, destination)

    replace = os.replace
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        WRITERS[name](tmp_path, monkeypatch)
    assert target.read_bytes() == b"old and whole" and not list(tmp_path.glob("*.part"))
    monkeypatch.setattr(os, "replace", replace)
    WRITERS[name](tmp_path, monkeypatch)
    assert min(len(target.read_bytes()), len(replaced[0])) > len(b"old and whole")
    if not name.endswith(("png", "npz")):
        assert target.read_bytes() == replaced[0]


def test_metrics_are_printed_in_per_cent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mAP is a fraction and mIoU a percentage in the frameworks: one of them would be printed wrong by 100."""
    path = write_metrics({"coco/bbox_mAP": 0.125, "coco/segm_mAP": 0.1}, tmp_path)
    assert json.loads(path.read_text()) == {"coco/bbox_mAP": 0.125, "coco/segm_mAP": 0.1}
    write_metrics({"mIoU": 41.5, "mAcc": 50.0, "aAcc": 80.25}, tmp_path)
    detection, segmentation = capsys.readouterr().out.splitlines()
    assert detection.startswith("bbox mAP 12.50, segm mAP 10.00")
    assert segmentation.startswith("mIoU 41.50, mAcc 50.00, aAcc 80.25")


def test_arrays_are_numpys(tmp_path: Path) -> None:
    """--save would give a file of another name or content than numpy's savez."""
    for given in ("a", "b.npz"):
        save_arrays({"x": np.arange(3), "y": np.eye(2)}, str(tmp_path / given))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    with np.load(tmp_path / "a.npz") as loaded:
        assert loaded["x"].tolist() == [0, 1, 2] and loaded["y"].tolist() == [[1, 0], [0, 1]]


def test_the_dense_probe_counts_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of eight GPUs would be published as one of one: the process group ends before it is written."""
    processes = [1]

    class Runner:
        model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1)})

        test_evaluator = SimpleNamespace(metrics=[SimpleNamespace(baseline_metrics={"mIoU": 4.0})])

        def register_hook(self, hook: object) -> None: ...

        def train(self) -> None: ...

        def test(self) -> dict[str, float]:
            return {"mIoU": 10.0, "mAcc": 20.0, "aAcc": 30.0}

    def run(cfg: Config, task: Callable[[Any], Any]) -> Any:
        processes[0] = 2  # the process group is there while the task runs
        result = task(Runner())
        processes[0] = 1
        return result

    origin = Origin("m", {}, "none", None, None, 0)
    text = (
        "train_cfg = dict(max_iters=1)\ndata_root = 'photos'\n"
        "train_dataloader = dict(batch_size=2, dataset=dict(data_root=data_root))\n"
    )
    (tmp_path / "probe.py").write_text(f"{text}optim_wrapper = dict(optimizer=dict(lr=0.1))\n")
    monkeypatch.setattr(environment, "world_size", lambda: processes[0])
    monkeypatch.setattr(dense_probe, "run", run)
    monkeypatch.setattr(dense_probe, "load_trunk", lambda *_: (None, origin))
    for name in ("put_backbone", "put_classes", "on_first_rank"):
        monkeypatch.setattr(dense_probe, name, lambda *_: None)
    monkeypatch.setattr(dense_probe, "cityscapes_present_classes", lambda *_: ("road",))
    out = tmp_path / "dense.json"
    tool("eval_dense").main(
        ["data", "--checkpoint", "a.pth", "--config", str(tmp_path / "probe.py"), "--out", str(out)]
    )
    result = json.loads(out.read_text())
    assert (
        result["world_size"] == 2
        and result["mIoU"] == 10.0
        and result["baseline"]["mIoU"] == 4.0
        and result["device"]
    )
