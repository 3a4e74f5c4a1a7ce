"""Own photos and own labels through the friendly calls, at toy length, as a newcomer would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import mst_toolkit as mst
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError

CLASSES = ("scratch", "dent")


def draw(path: Path, seed: int) -> list[float]:
    """A photo with one bright box; returns the box, x y w h."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (48, 64, 3), np.uint8)
    x, y, width, height = (int(v) for v in (*rng.integers(4, 20, 2), *rng.integers(12, 24, 2)))
    pixels[y : y + height, x : x + width] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return [float(x), float(y), float(width), float(height)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a Roboflow export with ids from 0, and images with masks of 0 and 255."""
    root = tmp_path_factory.mktemp("front")
    for number in range(16):
        draw(root / f"photos/p{number}.png", number)
    for split, count in (("train", 12), ("valid", 4)):
        images, annotations = [], []
        for number in range(count):
            box = draw(root / f"parts/{split}/{number}.png", 100 + number)
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
            entry = {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": box}
            annotations.append(entry | {"area": box[2] * box[3], "iscrowd": 0, "segmentation": []})
        names = ("objects", *CLASSES)
        categories = [{"id": index, "name": name} for index, name in enumerate(names)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"parts/{split}/_annotations.coco.json").write_text(json.dumps(content))
    for number in range(10):
        x, y, width, height = (int(v) for v in draw(root / f"road/images/{number}.png", 200 + number))
        mask = np.zeros((48, 64), np.uint8)
        mask[y : y + height, x : x + width] = 255
        (root / "road/masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / f"road/masks/{number}.png")
    return root


@pytest.fixture(scope="module")
def backbone(work: Path) -> Path:
    """A toy pretraining on the photos."""
    run = work / "runs/photos"
    options = dict(arch="vit_tiny", image_size=32, steps=3, batch_size=4, workers=0)
    return mst.pretrain(work / "photos", out=run, cfg_options=["model.head.prototypes=32"], **options)


def test_a_pretraining_leaves_a_whole_run(backbone: Path) -> None:
    """The next command would find nothing, or other weights than those that were trained."""
    assert {path.name for path in backbone.iterdir()} >= {
        *("config.py", "recipe.py", "plan.json", "train.log", "metrics.jsonl", "checkpoints", "backbone"),
        "report.html",
    }
    plan = json.loads((backbone / "plan.json").read_text())
    values = {decision["key"]: decision["value"] for decision in plan["decisions"]}
    assert (values["steps"], values["images"], values["batch_size"]) == (3, 16, 4)
    cfg = load_config(backbone / "config.py")
    assert (cfg.train_cfg.max_iters, cfg.model.head.prototypes) == (3, 32)
    lines = [json.loads(line) for line in (backbone / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "train"] == [1, 2, 3]
    assert all(line["lr"] <= 5e-4 * 4 / 16 for line in lines if line["stage"] == "train")
    teacher = load_checkpoint(backbone / "checkpoints/last.pth")["state_dict"]
    model = timm.create_model(f"local-dir:{backbone / 'backbone'}", pretrained=True, num_classes=0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, teacher[f"teacher.backbone.{name}"]), name


def test_a_folder_in_use_and_a_missing_start_are_refused(work: Path, backbone: Path) -> None:
    """A finished run would be overwritten, or hours be trained from random weights unasked."""
    with pytest.raises(UserError, match="holds a run already"):
        mst.pretrain(work / "photos", out=backbone, arch="vit_tiny", image_size=32, steps=3, batch_size=4)
    with pytest.raises(UserError, match=r"no --init says from which.*--init random"):
        mst.finetune("detection", work / "parts")
    with pytest.raises(UserError, match=r"there is none at runs/nothing.*--init random"):
        mst.finetune("detection", work / "parts", init="runs/nothing")
    with pytest.raises(UserError, match="is a ViT-Ti/16 of 32 px, but --arch says swin_tiny"):
        mst.finetune("detection", work / "parts", init=backbone, arch="swin_tiny", out=work / "runs/x")
    with pytest.raises(UserError, match="is a pretraining: it has no classes"):
        mst.evaluate(backbone)


def test_a_dry_run_writes_nothing(work: Path, backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Looking at a plan would leave a folder that the real run then refuses."""
    out = work / "runs/dry"
    options = dict(out=out, image_size=64, steps=2, batch_size=2, dry_run=True)
    assert mst.finetune("segmentation", work / "road", init=backbone, **options) == out
    printed = capsys.readouterr().out
    assert not out.exists() and "UperNet, ViT-Ti/16" in printed and "split by us" in printed


def test_detection_is_trained_scored_and_predicts(work: Path, backbone: Path) -> None:
    """The way from own labels to a detector would break at one of its commands."""
    run = work / "runs/parts"
    options = dict(out=run, image_size=64, steps=2, batch_size=2, workers=0)
    assert mst.finetune("detection", work / "parts", init=backbone, **options) == run
    cfg = load_config(run / "config.py")
    assert cfg.model.type == "FasterRCNN" and cfg.model.roi_head.bbox_head.num_classes == 2
    assert cfg.classes == CLASSES and cfg.train_dataloader.dataset.metainfo.classes == CLASSES
    found = mst.evaluate(run)
    assert found["task"] == "detection" and [row["name"] for row in found["classes"]] == list(CLASSES)
    assert json.loads((run / "metrics.json").read_text())["main"] == found["main"]
    assert all(row["baseline"] is not None for row in found["classes"])
    mst.predict(run, [work / "photos/p0.png"], out=work / "predictions")
    index = json.loads((work / "predictions/predictions.json").read_text())
    assert len(index["images"]) == 1 and index["failed"] == []


def test_edited_classes_reach_every_head(work: Path, backbone: Path) -> None:
    """Editing a line of config.py would change nothing, or the data alone."""
    run = work / "runs/edit"
    options = dict(image_size=64, steps=2, batch_size=2, workers=0)
    from mst_toolkit.training import begin, find_data, find_start, finetuning_plan

    asked = dict(gpus=1, precision="auto", seed=0, epochs=None, hours=None, boxes_only=True, cfg_options=())
    asked |= options
    data, _ = find_data("detection", work / "parts", asked)
    plan, cfg = finetuning_plan(data, find_start(backbone), run, asked, write=True)
    begin(plan, cfg, run, False, asked)
    text = (run / "config.py").read_text()
    (run / "config.py").write_text(text.replace(repr(CLASSES), repr((*CLASSES, "rust"))))
    edited = load_config(run / "config.py")
    assert edited.model.roi_head.bbox_head.num_classes == 3
    assert edited.val_dataloader.dataset.metainfo.classes == (*CLASSES, "rust")


def test_compare_gives_a_paired_difference(work: Path, backbone: Path) -> None:
    """The project's own question would not be answered on own data."""
    options = dict(image_size=64, steps=2, batch_size=2, workers=0, seeds=1, labels=[4])
    out = work / "runs/compare"
    result = mst.compare(work / "road", starts=["random", backbone, "dino"], out=out, **options)
    assert [row["start"] for row in result["rows"]] == ["random", str(backbone)]
    first, second = result["rows"]
    assert second["difference"]["mean"] == pytest.approx(second["mean"] - first["mean"])
    assert second["difference"]["low"] <= second["difference"]["high"] and first["baseline"] is not None
    assert len(result["left_out"]) == 1 and result["left_out"][0].startswith("dino: ")
    lists = [
        (place / "split/train.txt").read_text().split() for place in sorted(out.glob("4_labels/*/seed0"))
    ]
    assert lists[0] == lists[1] and len(lists[0]) == 4
    again = mst.compare(work / "road", starts=["random", backbone], out=out, **options)
    assert again["rows"] == result["rows"]
