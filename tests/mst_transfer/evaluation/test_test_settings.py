"""What tools/test.py makes of a config's evaluators; speed; the report's files."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_transfer.evaluation import MSTIoUMetric, speed
from mst_transfer.evaluation.report import write_report
from mst_transfer.evaluation.settings import check_metrics, use_our_metrics

CONFIGS = Path(__file__).parents[3] / "configs"


def config(name: str, evaluator: Any = None) -> Config:
    cfg = load_config(CONFIGS / name)
    if evaluator is not None:
        cfg.test_evaluator = evaluator
    return cfg


def test_mmdets_metric_becomes_ours() -> None:
    """A user's own mmdet config would have no per-class table, result files or choice of library."""
    theirs = dict(type="CocoMetric", ann_file="a.json", metric="bbox", classwise=True, format_only=False)
    cfg = config("coco/mask_rcnn_mst.py", theirs)
    use_our_metrics(cfg, "pycocotools", "results")
    expected = dict(
        type="MSTCocoMetric", ann_file="a.json", metric="bbox", library="pycocotools", out_dir="results"
    )
    assert [dict(evaluator) for evaluator in cfg.test_evaluator] == [expected]


def test_mmsegs_metric_becomes_ours() -> None:
    """Cityscapes' results would hold train ids, or lose their city."""
    cfg = config("cityscapes/upernet_mst.py", [dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"])])
    use_our_metrics(cfg, None, "results")
    (evaluator,) = cfg.test_evaluator
    assert evaluator.type == "MSTIoUMetric" and evaluator.out_dir == "results"
    assert evaluator.label_ids[:3] == [7, 8, 11] and len(evaluator.label_ids) == 19
    assert evaluator.image_root == "data/cityscapes/leftImg8bit/val"


def test_other_metrics_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that our metrics have no place for would be dropped without a word."""
    theirs = dict(type="CocoMetric", ann_file="a.json", proposal_nums=(10, 20, 30))
    cfg = config("coco/mask_rcnn_mst.py", theirs)
    use_our_metrics(cfg, None, None)
    assert dict(cfg.test_evaluator[0]) == theirs and "proposal_nums" in capsys.readouterr().out
    for options, message in ((("pycocotools", None), "--coco-library"), ((None, "results"), "--out")):
        with pytest.raises(UserError, match=message):
            use_our_metrics(config("coco/mask_rcnn_mst.py", theirs), *options)
    with pytest.raises(UserError, match="--coco-library"):
        use_our_metrics(config("cityscapes/upernet_mst.py"), "pycocotools", None)


def test_unusable_annotations_are_found_before_the_test(tmp_path: Path) -> None:
    """Hours of prediction would end in an error about the annotation file."""
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}],
    }
    path = tmp_path / "a.json"
    cfg = config("coco/mask_rcnn_mst.py", dict(type="MSTCocoMetric", ann_file=str(path)))
    for classes, category, message in (
        (("car", "dog"), 1, "has no category dog"),
        (("person", "car"), 1, "must have the same order"),
        (("car", "person"), 7, "have a category that is not in its categories"),
    ):
        cfg.test_dataloader.dataset.metainfo = dict(classes=classes)
        triangle = {"bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 6, 1, 6, 6]]}
        content["annotations"] = [{"image_id": 1, "category_id": category, **triangle}]
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            check_metrics(cfg)


def test_speed_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first slow batches, or the time between batches, would make the figure wrong."""
    clock = iter([0.0, 9.0, 10.0, 17.0] + [time for i in range(10) for time in (20.0 + i, 20.5 + i)])
    monkeypatch.setattr(speed, "_now", lambda: next(clock))
    hook = speed.SpeedHook()
    step = hook.timed(lambda data: data)
    for _ in range(12):
        assert step(["image", "image"]) == ["image", "image"]
    found = hook.summary()
    assert (found["warm_up_images"], found["images_timed"], found["batch_size"]) == (10, 14, 2)
    assert found["images_per_second"] == pytest.approx(4) and found["ms_per_image"] == pytest.approx(250)
    assert 50 < found["peak_process_memory_mib"] < 64 * 1024
    assert (found["peak_gpu_memory_mib"] is None) == (not torch.cuda.is_available())
    assert "4.00 images/s, 250.0 ms per image" in speed.speed_line(found)
    assert "no image" in speed.speed_line(speed.SpeedHook().summary())


def test_report_has_every_number(tmp_path: Path) -> None:
    """The JSON, the table and the picture of a test would miss the confusion matrix or exchange its sides."""
    (tmp_path / "weights.pth").write_bytes(b"weights")
    metric = MSTIoUMetric()
    metric.dataset_meta = {"classes": ("road", "car", "sky")}
    matrix = np.array([[90, 10, 0], [4, 6, 0], [0, 0, 0]])
    metric.compute_metrics([matrix])
    settings = {"config": "c.py", "checkpoint": str(tmp_path / "weights.pth")}
    files = write_report(tmp_path, [metric], settings, {"images_per_second": 2.0})
    report = json.loads((tmp_path / "test_report.json").read_text())
    scores = report["scores"][0]
    assert (
        scores["confusion_matrix"]["pixels"] == matrix.tolist() and scores["per_class"]["sky"]["IoU"] is None
    )
    assert (
        scores["per_class"]["car"]["IoU"] == pytest.approx(6 / 20)
        and report["speed"]["images_per_second"] == 2
    )
    assert report["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    rows = list(csv.reader((tmp_path / "confusion_matrix.csv").open()))
    assert rows[0][1:] == ["road", "car", "sky"] and rows[1] == ["road", "90", "10", "0"]
    picture = np.asarray(Image.open(tmp_path / "confusion_matrix.png").convert("RGB")).astype(int)
    assert [file.name for file in files] == [
        "test_report.json",
        "confusion_matrix.csv",
        "confusion_matrix.png",
    ]
    assert min(picture.shape[:2]) > 300 and not list(tmp_path.glob("*.part"))
    blue = (
        picture[..., 2] - picture[..., 0]
    ) > 60  # 90 per cent of road is road: the dark square, upper left
    assert blue.sum() > 1000 and np.argwhere(blue).mean(0)[0] < picture.shape[0] * 0.6
