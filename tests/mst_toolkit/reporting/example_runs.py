"""Example run folders: a pretraining of a toy network, a detection and a segmentation of drawn images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image, ImageDraw

import mst_pretrain  # noqa: F401, registers the model
from mst_pretrain.runtime.config import load_config

ROOT = Path(__file__).parents[3]
HOSTILE = '<b onclick="x()">rust & dent</b>'  # a class that would be HTML
CLASSES = ("scratch", HOSTILE)
COLORS = ((200, 60, 40), (40, 90, 210))
SIDE = 64

PRETRAIN = f"""
_base_ = {str(ROOT / "configs/_base_/mst_pretrain.py")!r}
data_root = "@PHOTOS@"
model = dict(
    backbone=dict(
        name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, drop_path_rate=0.0
    ),
    head=dict(prototypes=24, hidden_dim=16, bottleneck_dim=8),
    masking=dict(mode="attention", num=2, prob=1.0),
    decoder=dict(width=8, min_width=4),
)
train_dataloader = dict(dataset=dict(data_root=data_root))
"""
BACKBONE = """
        model_args=dict(img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2),
        pyramid=True,
        out_indices=(0, 1),
        init_cfg=None,
"""
DETECTION = f"""
_base_ = {str(ROOT / "configs/quickstart/mask_rcnn.py")!r}
data_root = "@DATA@/"
classes = {CLASSES!r}
model = dict(
    backbone=dict({BACKBONE}),
    neck=dict(in_channels=[32, 32], out_channels=16, num_outs=4),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16, featmap_strides=[4, 8]),
        bbox_head=dict(in_channels=16, fc_out_channels=32, num_classes=2),
        mask_roi_extractor=dict(out_channels=16, featmap_strides=[4, 8]),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2),
    ),
)
part = dict(data_root=data_root, metainfo=dict(classes=classes), ann_file="annotations/instances_val.json")
part["data_prefix"] = dict(img="val/")
train_dataloader = dict(dataset=part)
val_dataloader = dict(dataset=part)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator
"""
SEGMENTATION = f"""
_base_ = {str(ROOT / "configs/quickstart/upernet.py")!r}
data_root = "@DATA@"
classes = ("background", {HOSTILE!r})
model = dict(
    backbone=dict({BACKBONE}),
    decode_head=dict(in_channels=[32, 32], in_index=[0, 1], channels=16, num_classes=2),
)
part = dict(type="FolderSegmentation", data_root=data_root, metainfo=dict(classes=classes))
part["data_prefix"] = dict(img_path="images", seg_map_path="labels")
train_dataloader = dict(dataset=part)
val_dataloader = dict(dataset=part)
test_dataloader = val_dataloader
"""


def photos(folder: Path, count: int) -> Path:
    """Images of one bright square each on noise, of different shapes; their names would be HTML too."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 60, (40 + 4 * (number % 3), 48, 3)).astype(np.uint8)
        pixels[10:30, 10:30] = COLORS[number % 2]
        Image.fromarray(pixels).save(folder / f"<i>{number}&.png")
    return folder


def scenes(count: int) -> list[tuple[Image.Image, list[tuple[int, tuple[int, int, int, int]]]]]:
    """Images of 64 px with one or two rectangles: label, and left, top, right, bottom."""
    found = []
    for number in range(count):
        image = Image.new("RGB", (SIDE, SIDE), (90, 90, 90))
        things = [(number % 2, (6, 8 + number % 5, 30, 34))]
        things += [(1, (36, 30, 60, 56))] if number % 3 == 0 else []
        for label, box in things:
            ImageDraw.Draw(image).rectangle(box, fill=COLORS[label])
        found.append((image, things))
    return found


def detection_data(folder: Path, count: int = 9) -> Path:
    """The scenes in COCO's layout; ids from 1."""
    (folder / "val").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for number, (image, things) in enumerate(scenes(count), 1):
        name = f"<i>{number}&.png"
        image.save(folder / "val" / name)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for label, (left, top, right, bottom) in things:
            width, height = right - left, bottom - top
            polygon = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations/instances_val.json").write_text(json.dumps(content))
    return folder


def segmentation_data(folder: Path, count: int = 9) -> Path:
    """The scenes with label maps: 1 where there is a rectangle."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number, (image, things) in enumerate(scenes(count), 1):
        image.save(folder / f"images/scene_{number}.png")
        labels = Image.new("L", (SIDE, SIDE), 0)
        for _, box in things:
            ImageDraw.Draw(labels).rectangle(box, fill=1)
        labels.save(folder / f"labels/scene_{number}.png")
    return folder


def history(
    steps: int = 400,
    total: int = 400,
    every: int = 10,
    loss: Callable[[float], float] = lambda x: 1 + math.exp(-5 * x),
) -> list[dict[str, Any]]:
    """Training lines of a run whose loss is a function of the share of the steps."""
    return [
        {
            "step": step,
            "total": total,
            "stage": "train",
            "time": 1.8e9 + step,
            "loss": loss(step / total),
            "lr": 1e-4,
            "images_per_second": 30.0,
            "data_share": 0.02,
        }
        for step in range(every, steps + 1, every)
    ]


def write_run(folder: Path, config: str = "", lines: Sequence[dict[str, Any]] = (), **files: Any) -> Path:
    """A run folder with ``config.py``, ``metrics.jsonl``, and JSON files by their names without suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        (folder / "config.py").write_text(config)
    if lines:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def plan(task: str, **more: Any) -> dict[str, Any]:
    """A plan with a class and a reason that would be HTML."""
    return {
        "task": task,
        "title": f"Example {task}",
        "command": f"mst {task} data",
        "decisions": [{"key": "batch size", "value": 16, "why": "fits <script>alert(1)</script>"}],
        "data": {
            "layout": "COCO",
            "root": "data",
            "classes": list(CLASSES),
            "objects": {HOSTILE: 12, "scratch": 30},
        },
        "start": {"given": "runs/photos", "kind": "run", "architecture": "vit_small", "sha256": "ab" * 32},
        "seed": 3,
        "created": "2026-01-02T03:04:05",
        **more,
    }


def metrics(
    task: str, value: float = 34.2, low: float = 31.0, high: float = 37.1, **more: Any
) -> dict[str, Any]:
    """Scores of two classes with their baseline."""
    name = "AP" if task == "detection" else "IoU"
    return {
        "task": task,
        "main": {"name": name, "value": value, "low": low, "high": high, "baseline": 3.1},
        "scores": {"AP_small": 11.5, "AP_large": 40.25},
        "classes": [
            {
                "name": "scratch",
                "images": 9,
                "objects": 30,
                name: 40.0,
                "low": 35.0,
                "high": 45.0,
                "baseline": 4.2,
            },
            {
                "name": HOSTILE,
                "images": 5,
                "objects": 12,
                name: 2.0,
                "low": 0.5,
                "high": 4.0,
                "baseline": 2.0,
            },
        ],
        "baseline": {"name": "most frequent box", "scores": {"AP_small": 1.5}},
        "sha256": "cd" * 32,
        "images": 9,
        "data": "ef" * 32,
        **more,
    }


def pretraining_run(folder: Path, count: int = 7) -> Path:
    """A toy network with random weights on written photos, and the numbers that a training records."""
    images = photos(folder.parent / f"{folder.name}_photos", count)
    config = PRETRAIN.replace("@PHOTOS@", str(images))
    told = {"teacher_entropy": 1.5, "kl": 0.4, "feature_std": 0.15, "masked_tokens": 8.0}
    told |= {"attention_masked": 0.03, "attention_visible": 0.09}
    lines = [
        {**line, **told, "loss_ce": 0.8 * line["loss"], "loss_rec": 0.2 * line["loss"]} for line in history()
    ]
    write_run(folder, config, lines, plan=plan("pretrain"))
    init_default_scope("mmengine")
    torch.manual_seed(0)
    model = MODELS.build(load_config(folder / "config.py").model)
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": model.state_dict(), "meta": {}}, folder / "checkpoints/last.pth")
    return folder


def finetuned_run(folder: Path, task: str, data: Path, **more: Any) -> Path:
    """A detector or segmentor with random weights on written data, with scores of it that are made up."""
    text = (DETECTION if task == "detection" else SEGMENTATION).replace("@DATA@", str(data))
    main = "AP" if task == "detection" else "IoU"
    evals = [{"step": step, "stage": "eval", main: 10.0 + step / 20} for step in (100, 200, 300, 400)]
    write_run(folder, text, [*history(), *evals], plan=plan(task), metrics=metrics(task), **more)
    cfg = load_config(folder / "config.py")
    import importlib

    import mst_transfer  # noqa: F401, registers the backbones

    importlib.import_module(f"{cfg.default_scope}.utils").register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    (folder / "checkpoints").mkdir(exist_ok=True)
    meta = {"dataset_meta": {"classes": tuple(cfg.classes)}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, folder / "checkpoints/best.pth")
    return folder
