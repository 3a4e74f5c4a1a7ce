"""Lengths, rates and batches of a plan, against the published recipes and by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_toolkit import recipes
from mst_toolkit.facts import Gpu, Machine, workers
from mst_toolkit.layouts import Found, Part
from mst_toolkit.plan import (
    RunPlan,
    check_lengths,
    detection_steps,
    scaled_rate,
    segmentation_steps,
    shown,
    validation_interval,
    validations_of_comparison,
    warm_up,
)
from mst_toolkit.planning import plan_finetuning, plan_pretraining
from mst_toolkit.starts import Start

CPU = Machine(2, 8.0, ())
BIG = Machine(16, 64.0, (Gpu("a", 80.0, 79.0, True),))
ASKED: dict[str, Any] = dict(
    gpus=1, batch_size=None, precision="auto", image_size=None, workers=None, seed=0, epochs=None, steps=None
)
SMALL_VIT = Start("random", "random", "vit_small_patch16_224")


def test_lengths_end_at_the_published_recipes() -> None:
    """A large data set would be trained shorter or longer than COCO's and Cityscapes' recipes."""
    assert detection_steps(118_287, 16) == pytest.approx(12 * 118_287 / 16, rel=0.01)
    assert segmentation_steps(2975, 8) == pytest.approx(40_000, rel=0.01)
    assert detection_steps(100, 16) == 1500 and detection_steps(100, 4) == 6000
    assert segmentation_steps(100, 8) == 4000 and segmentation_steps(100, 2) == 16_000


def test_warm_up_validations_and_rate() -> None:
    """A short run would spend itself warming up, validate once, or train at the rate of another batch."""
    assert (warm_up(100_000, 500), warm_up(1000, 500), warm_up(10, 500)) == (500, 50, 2)
    assert (validation_interval(1500), validation_interval(7)) == (100, 1)
    assert scaled_rate(1e-4, 4, 16) == pytest.approx(5e-5)
    assert (shown(12_000), shown(5e-5), shown((512, 1024)), shown(0.5)) == (
        "12,000",
        "5.0e-05",
        "512 x 1024",
        "0.5",
    )


def test_two_lengths_are_refused() -> None:
    """One of them would silently not count."""
    check_lengths(epochs=3.0, steps=None, hours=None)
    with pytest.raises(UserError, match="--epochs and --hours both give the length"):
        check_lengths(epochs=1.0, steps=None, hours=2.0)
    with pytest.raises(UserError, match="--steps 0: give a number above 0"):
        check_lengths(epochs=None, steps=0, hours=None)


def test_workers_leave_a_core_to_the_training() -> None:
    """Loading would take the cores that compute."""
    assert [workers(cores, 1) for cores in (1, 2, 4, 16, 64)] == [0, 1, 3, 15, 16]
    assert workers(16, 8) == 1


def test_a_pretraining_of_few_images() -> None:
    """Few photos would be trained by ImageNet's recipe, or 12 images fill no step and fail after the start."""
    plan = plan_pretraining("p", 3000, "vit_small_patch16_224", None, CPU, ASKED)
    assert (plan["recipe"], plan["batch_size"], plan["precision"]) == ("small-data", 16, "float32")
    assert plan["steps"] == round(300 * 3000 / 16)
    assert (plan["measure_every"], plan["knn"]) == (math.ceil(plan["steps"] / 15), None)
    labelled = plan_pretraining(
        "p", 3000, "vit_small_patch16_224", None, CPU, {**ASKED, "knn": "some/labels"}
    )
    assert labelled["knn"] == str(Path("some/labels").absolute())
    large = plan_pretraining("p", 60_000, "vit_small_patch16_224", None, BIG, ASKED)
    assert (large["recipe"], large["batch_size"], large["precision"]) == ("8xb128-300e_in1k", 128, "bfloat16")
    with pytest.raises(UserError, match=r"12 images do not fill one step of 64 \(8 GPUs x 8\)"):
        plan_pretraining("p", 12, "vit_small_patch16_224", None, BIG, {**ASKED, "gpus": 8, "batch_size": 8})


def found(tmp_path: Path, masks: str = "none", images: int = 300) -> Found:
    """A detection set whose one image on disk is 640 x 480."""
    from PIL import Image

    Image.new("RGB", (640, 480)).save(tmp_path / "a.jpg")
    part = Part("train", tmp_path, None, images, names=("a.jpg",))
    return Found(
        "detection", "COCO", tmp_path, part, Part("val", tmp_path, None, 60), classes=("x",), masks=masks
    )


@pytest.mark.parametrize(("masks", "title"), [("none", "Faster R-CNN"), ("all", "Mask R-CNN")])
def test_boxes_alone_make_a_faster_rcnn(tmp_path: Path, masks: str, title: str) -> None:
    """Data without polygons would need six options with pipeline indices, or train a mask head on nothing."""
    plan = plan_finetuning(found(tmp_path, masks), SMALL_VIT, CPU, {**ASKED, "boxes_only": False})
    assert plan.title == f"{title}, ViT-S/16" and plan["masks"] is (masks == "all")
    assert plan["batch_size"] == 2 and plan["steps"] == detection_steps(300, 2)
    assert plan["image_size"] == 800 and plan["learning_rate"] == pytest.approx(
        1e-4 * (2 / 16) ** 0.5, rel=1e-4
    )


def test_a_small_network_is_named_in_words() -> None:
    """The head line of a run would be a line of JSON, or call it a ViT-Ti/16."""
    changed = {"img_size": 64, "patch_size": 8, "embed_dim": 192, "depth": 4}
    assert (
        Start("a", "file", "vit_tiny_patch16_224", changed).title
        == "ViT-Ti/8 of 64 px with width 192, depth 4"
    )
    assert SMALL_VIT.title == "ViT-S/16"


def test_what_was_asked_for_decides(tmp_path: Path) -> None:
    """An option would be planned over."""
    asked = {**ASKED, "boxes_only": True, "batch_size": 4, "epochs": 2.0, "image_size": 256, "workers": 0}
    plan = plan_finetuning(found(tmp_path, "all"), SMALL_VIT, BIG, asked)
    assert (plan["batch_size"], plan["steps"], plan["image_size"], plan["workers"]) == (4, 150, 256, 0)
    assert plan["masks"] is False and plan["precision"] == "float16"


def test_without_faster_coco_eval_pycocotools_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside mmdet's own packages the training would end at its first validation, after hours."""
    asked = {**ASKED, "boxes_only": False}
    monkeypatch.setattr("mst_toolkit.planning.find_spec", lambda name: None)
    plan = plan_finetuning(found(tmp_path, "all"), SMALL_VIT, CPU, asked)
    data = found(tmp_path, "all")
    assert data.val is not None
    train, val = (replace(part, annotations=tmp_path / "a.json") for part in (data.train, data.val))
    cfg = recipes.detection(plan, SMALL_VIT, replace(data, train=train, val=val))
    assert cfg.val_evaluator["library"] == cfg.test_evaluator["library"] == "pycocotools"
    monkeypatch.undo()
    plan = plan_finetuning(found(tmp_path, "all"), SMALL_VIT, CPU, asked)
    assert all(decision.key != "scored_by" for decision in plan.decisions)


def test_a_decision_is_found_by_its_key() -> None:
    """The config would take a value from nowhere."""
    plan = RunPlan("pretrain", "t", {}, {})
    assert plan.decide("steps", 1200, "why") == 1200 and plan["steps"] == 1200 and plan.why("steps") == "why"
    assert list(plan.lines())[1].split() == ["steps", "1,200", "why"]
    with pytest.raises(StopIteration):
        plan["absent"]


def test_a_comparison_validates_less_often_on_many_images() -> None:
    """Fifteen validations on 5,000 images would take longer than a training with 20 labels; small sets keep them."""
    assert validations_of_comparison(600, 16, 60)[0] == 15
    count, why = validations_of_comparison(600, 16, 500)
    assert count == 5 and "15 on 500 images" in why  # 0.1 * 3 * 9,600 / 500
    assert validations_of_comparison(600, 16, 5000)[0] == 1
    assert validation_interval(600, 5) == 120 and validation_interval(600, 1) == 600
