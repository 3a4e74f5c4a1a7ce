"""A trained toy model's scores, beside pycocotools and scikit-learn, with intervals and baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

import mst_transfer  # noqa: F401, registers
from mst_pretrain.runtime.config import import_custom_modules, load_config
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.evaluating import METRICS, class_table, evaluate
from mst_toolkit.image_scores import FILE
from mst_toolkit.intervals import Bootstrap, load, paired
from mst_transfer.evaluation.baselines import frequent_box_map, position_prior

ROOT = Path(__file__).parents[2]
CLASSES = ("road", "sky", "car")


def street(root: Path, split: str, images: int, seed: int) -> None:
    """Cityscapes' layout: sky above road, a car somewhere; 32 x 64 pixels."""
    generator = np.random.default_rng(seed)
    for index in range(images):
        labels = np.full((32, 64), 0, np.uint8)
        labels[: generator.integers(10, 20)] = 10
        left = generator.integers(0, 48)
        labels[20:28, left : left + 12] = 13
        image = np.stack([labels * 9, 255 - labels * 9, generator.integers(0, 255, labels.shape)], 2)
        for folder, name, pixels in (
            ("leftImg8bit", "leftImg8bit.png", image.astype(np.uint8)),
            ("gtFine", "gtFine_labelTrainIds.png", labels),
        ):
            path = root / folder / split / "a" / f"{index}_{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def segmentor(tmp_path: Path) -> tuple[Path, Path]:
    """A config of UperNet's quickstart at toy size, and a checkpoint with random weights."""
    for split, images in (("train", 4), ("val", 5)):
        street(tmp_path / "data", split, images, images)
    cfg = load_config(ROOT / "configs/quickstart/upernet.py", {"data_root": str(tmp_path / "data")})
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=CLASSES)
        loader.num_workers, loader.persistent_workers = 0, False
    cfg.model.decode_head.num_classes = len(CLASSES)
    return written(cfg, tmp_path)


def written(cfg: Config, folder: Path) -> tuple[Path, Path]:
    cfg.model.backbone.init_cfg = None
    cfg.dump(folder / "config.py")
    import_custom_modules(cfg)
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        state = registry.build(cfg.model).state_dict()
    meta = {"dataset_meta": {"classes": cfg.val_dataloader.dataset.metainfo["classes"]}}
    torch.save({"state_dict": state, "meta": meta}, folder / "last.pth")
    return folder / "config.py", folder / "last.pth"


def test_segmentor(tmp_path: Path, one_thread: None) -> None:
    """metrics.json, its intervals, its baseline or the file for paired intervals would be of another evaluation."""
    config, checkpoint = segmentor(tmp_path)
    result = evaluate(config, checkpoint, tmp_path / "out", device="cpu")
    assert json.loads((tmp_path / "out" / METRICS).read_text()) == result
    scores, data = load(tmp_path / "out" / FILE)
    assert data == result["data"] and result["images"] == 5
    assert scores.images.tolist() == [f"{i}_leftImg8bit.png" for i in range(5)]
    assert result["main"]["value"] == pytest.approx(Bootstrap(scores, 1).main()["value"])
    assert result["main"]["low"] <= result["main"]["value"] <= result["main"]["high"]
    assert result["main"]["value"] == pytest.approx(result["scores"]["mIoU"])
    prior = position_prior(tmp_path / "data", "val", CLASSES)
    assert result["baseline"]["name"] == "position prior"
    assert result["main"]["baseline"] == pytest.approx(100 * (prior.mean_iou or 0))
    for row in result["classes"]:
        assert row["baseline"] == pytest.approx(100 * (prior.per_class[row["name"]]["IoU"] or 0))
    assert [row["images"] for row in result["classes"]] == [5, 5, 5]
    assert result["classes"][2]["pixels"] == 5 * 8 * 12
    lines = class_table(result).splitlines()
    assert len({len(line) for line in lines[:6]}) == 1 and "95 % interval" in lines[0] and "%" in lines[0]
    assert paired(tmp_path / "out" / FILE, tmp_path / "out" / FILE)["difference"] == 0


def coco(root: Path, split: str, images: int, seed: int) -> Path:
    """COCO's layout with masks, class b in no image of val; 64-pixel images."""
    generator = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}, {"id": 3, "name": "b"}],
    }
    for index in range(1, images + 1):
        name = f"{split}{index}.jpg"
        (root / split).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / split / name)
        content["images"].append({"id": index, "file_name": name, "height": 64, "width": 64})
        for category in (1, 3) if split == "train2017" else (1,):
            x, y = generator.integers(8, 14, 2).tolist()
            polygon = [x, y, x + 40, y, x + 40, y + 40, x, y + 40]
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": index, "category_id": category}
                | {"bbox": [x, y, 40, 40], "area": 1600, "iscrowd": 0, "segmentation": [polygon]}
            )
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_detector(tmp_path: Path, one_thread: None) -> None:
    """A detector's rows would have another class's baseline or interval, or its masks none."""
    files = [
        coco(tmp_path / "data", f"{split}2017", count, count) for split, count in (("train", 6), ("val", 4))
    ]
    cfg = load_config(ROOT / "configs/quickstart/mask_rcnn.py", {"data_root": str(tmp_path / "data")})
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=("a", "b"))
        loader.num_workers, loader.persistent_workers = 0, False
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = 2
    config, checkpoint = written(cfg, tmp_path)
    result = evaluate(config, checkpoint, tmp_path / "out", device="cpu")
    a, b = result["classes"]
    assert (a["name"], a["images"], a["objects"]) == ("a", 4, 4) and (b["images"], b["AP"], b["low"]) == (
        0,
        None,
        None,
    )
    assert a["AP"] == pytest.approx(result["scores"]["box AP"]) == pytest.approx(result["main"]["value"])
    assert result["baseline"]["name"] == "most frequent boxes"
    assert (
        result["main"]["baseline"] == pytest.approx(frequent_box_map(*files)) == pytest.approx(a["baseline"])
    )
    assert (
        result["masks"]["baseline"] == pytest.approx(frequent_box_map(*files, "segm")) and a["baseline"] > 20
    )
    assert b["baseline"] is None
    scores, _ = load(tmp_path / "out" / FILE)
    assert 100 * scores.mean(np.ones((1, 4), int))[0] == pytest.approx(result["main"]["value"], abs=1e-9)
    assert scores.images.tolist() == [f"val2017{i}.jpg" for i in range(1, 5)]
    with pytest.raises(UserError, match="--split all"):
        evaluate(config, checkpoint, tmp_path / "out", split="all")


def test_without_training_data_there_is_no_baseline(
    tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test on another machine than the training would crash, or show a baseline of nothing."""
    config, checkpoint = segmentor(tmp_path)
    (tmp_path / "data/gtFine/train").rename(tmp_path / "data/gone")
    result = evaluate(config, checkpoint, tmp_path / "out", device="cpu")
    assert (
        result["baseline"] is None
        and result["main"]["baseline"] is None
        and result["main"]["value"] is not None
    )
    assert "no trivial baseline" in capsys.readouterr().out


def test_long_lists_are_cut() -> None:
    """A table of a thousand classes would push the mean out of the terminal."""
    row = {"images": 1, "IoU": 50.0, "low": 40.0, "high": 60.0, "baseline": 1.0}
    result = {
        "task": "segmentation",
        "main": {"name": "mIoU", "value": 50.0, "low": 45.0, "high": 55.0, "baseline": 1.0},
        "scores": {},
        "images": 9,
        "classes": [{"name": f"c{i}", **row} for i in range(100)],
        "baseline": {"name": "position prior"},
    }
    lines = class_table(result).splitlines()
    assert "... and 20 more classes, which are in metrics.json" in lines and len(lines) == 2 + 80 + 1 + 2 + 3
