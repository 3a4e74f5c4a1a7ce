"""Data sets built from every layout give what the files hold; a split shows no validation image to the training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS
from PIL import Image

import mst_transfer  # noqa: F401  (registers data sets and metrics)
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.layouts import Found, dataset, evaluator, recognise, split, with_classes, write_lists
from mst_toolkit.layouts.splitting import stratified
from mst_transfer.comparison.identity import data_of
from mst_transfer.data import detection  # noqa: F401
from mst_transfer.data.used_labels import check_labels
from mst_transfer.data.used_objects import check_objects
from mst_transfer.evaluation.coco_scores import load_ground_truth
from mst_transfer.evaluation.settings import check_metrics

from . import drawn_data as drawn

LOAD = {
    "detection": [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    ],
    "segmentation": [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
}


def built(found: Found, part: str, load: bool = True, **more: Any) -> Any:
    """The data set of a config, with images and labels loaded."""
    scope = "mmdet" if found.task == "detection" else "mmseg"
    with DATASETS.switch_scope_and_registry(scope) as registry:
        cfg = Config(dataset(found, part) | {"pipeline": LOAD[found.task] if load else []} | more)
        return registry.build(cfg._cfg_dict)


def one_file(tmp_path: Path, images: int = 10, **changes: Any) -> Path:
    content = drawn.coco([f"{i}.jpg" for i in range(images)], ["a", "b"], **changes)
    drawn.write_coco(tmp_path / "result.json", content, tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize("make", [drawn.roboflow, drawn.coco_layout, one_file])
def test_detection_sample(tmp_path: Path, make: Any) -> None:
    """Boxes, labels, masks or pixels would be those of another image or class."""
    found = recognise(make(tmp_path))
    for part in found.parts:
        content = json.loads(Path(str(part.annotations)).read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        sample = built(found, part.name, test_mode=True)[1]
        image = next(image for image in content["images"] if image["id"] == sample["img_id"])
        truth = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        path = next(part.images.rglob(image["file_name"]))
        np.testing.assert_array_equal(sample["img"][..., ::-1], np.asarray(Image.open(path)))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in truth)]
        np.testing.assert_array_equal(sample["gt_bboxes"].tensor.numpy(), boxes)
        labels = [names[a["category_id"]] for a in truth]
        assert [found.classes[label] for label in sample["gt_bboxes_labels"]] == labels
        assert len(sample["gt_masks"]) == len(truth)


def test_parts_of_one_file(tmp_path: Path) -> None:
    """Validation images would be trained on, or be lost; the metric would count images that nobody predicts."""
    found = write_lists(split(recognise(one_file(tmp_path / "data")), seed=3), tmp_path / "run")
    names = {}
    for part, count in (("train", 8), ("val", 2)):
        data = built(found, part, load=False, test_mode=True)
        names[part] = {Path(data.get_data_info(i)["img_path"]).name for i in range(len(data))}
        assert len(names[part]) == count
        assert (tmp_path / f"run/split/{part}.txt").read_text().split() == sorted(names[part])
        assert dataset(found, part)["image_list"] == str(tmp_path / f"run/split/{part}.txt")
        settings = evaluator(found, part)
        metric = METRICS.build(settings)
        content = load_ground_truth(metric.ann_file, True, None, metric.image_list)
        assert {image["file_name"] for image in content["images"]} == names[part]
        assert {a["image_id"] for a in content["annotations"]} == {image["id"] for image in content["images"]}
    assert names["train"].isdisjoint(names["val"]) and len(names["train"] | names["val"]) == 10
    assert found.objects == {"a": 8, "b": 8} and found.warnings == ()


def test_class_without_validation_image_is_said(tmp_path: Path) -> None:
    """A class would have no score, and nobody know why."""
    content = drawn.coco([f"{i}.jpg" for i in range(10)], ["a", "b"], per_image=1)
    for annotation in content["annotations"]:
        annotation["category_id"] = 2 if annotation["image_id"] == 4 else 1
    drawn.write_coco(tmp_path / "result.json", content, tmp_path)
    (warning,) = split(recognise(tmp_path)).warnings
    assert warning.endswith("not scored: b")


def test_metric_scores_the_part_alone(tmp_path: Path) -> None:
    """A perfect prediction of the validation images would score as if the training images were missed."""
    found = split(recognise(one_file(tmp_path)))
    metric = METRICS.build(evaluator(found, "val"))
    metric.dataset_meta = {"classes": found.classes}
    data, content = (
        built(found, "val", load=False, test_mode=True),
        json.loads((tmp_path / "result.json").read_text()),
    )
    results = []
    for index in range(len(data)):
        info = data.get_data_info(index)
        truth = [a for a in content["annotations"] if a["image_id"] == info["img_id"]]
        masks = []
        for a in truth:
            pixels = np.zeros((drawn.HEIGHT, drawn.WIDTH), np.uint8, order="F")
            x, y, w, h = a["bbox"]
            pixels[y : y + h, x : x + w] = 1
            from pycocotools import mask as coco_masks

            rle = coco_masks.encode(pixels)
            masks.append({"size": list(rle["size"]), "counts": rle["counts"].decode()})
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in truth)], np.float32)
        labels = np.array([a["category_id"] - 1 for a in truth])
        results.append(
            (
                info["img_id"],
                {"bboxes": boxes, "labels": labels, "scores": np.ones(len(truth)), "masks": masks},
            )
        )
    scores = metric.compute_metrics(results)
    assert scores["bbox_mAP"] == pytest.approx(1.0)
    assert metric.report["images"] == len(results) == 2


def test_evaluator_of_other_images_is_refused(tmp_path: Path) -> None:
    """Data set and evaluator with different lists would score images that are not predicted."""
    found = split(recognise(one_file(tmp_path)))
    loader = {"dataset": dataset(found, "val")}
    cfg = Config(
        {"default_scope": "mmdet", "val_dataloader": loader, "val_evaluator": evaluator(found, "val")}
    )
    check_metrics(cfg, "val")
    cfg.val_evaluator = evaluator(found, "train")
    with pytest.raises(UserError, match="different, so that other images would be scored"):
        check_metrics(cfg, "val")


def test_used_objects_of_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part of a file would be refused as less than half of it; two parts would have one identity."""
    found = split(recognise(one_file(tmp_path)))
    train, val = built(found, "train", load=False), built(found, "val", load=False, test_mode=True)
    check_objects(val, "val", trains=False)
    assert "val: 2 of 2 images and 4 of 4 objects are used" in capsys.readouterr().out
    assert data_of(train)["sha256"] != data_of(val)["sha256"]


def test_lists_that_do_not_fit(tmp_path: Path) -> None:
    """A list of an older export would silently be a smaller data set."""
    found = recognise(one_file(tmp_path))
    with pytest.raises(UserError, match=r"has no entry for 1 of 2 images of the list: new\.jpg"):
        built(found, "train", image_list=["1.jpg", "new.jpg"])
    with pytest.raises(UserError, match="names twice"):
        built(found, "train", image_list=["1.jpg", "1.jpg"])
    with pytest.raises(UserError, match="cannot be read"):
        built(found, "train", image_list=str(tmp_path / "absent.txt"))
    masks = recognise(drawn.masks(tmp_path / "masks", [0, 1]))
    with pytest.raises(UserError, match="1 of 2 images of the list do not exist"):
        built(masks, "train", image_list=["1.jpg", "new.jpg"])


def labels_of(sample: dict[str, Any]) -> list[int]:
    """Labels of the stripes, from left to right."""
    row = sample["gt_seg_map"][0].tolist()
    assert (sample["gt_seg_map"] == sample["gt_seg_map"][:1]).all()
    return [label for place, label in enumerate(row) if place == 0 or row[place - 1] != label]


@pytest.mark.parametrize(
    ("values", "wanted", "how"),
    [
        ([0, 255], [0, 1], {}),
        ([0, 255], [0, 1], {"mode": "RGB"}),
        ([0, 1, 255], [0, 1, 255], {}),
        ([0, 7, 11], [0, 1, 2], {}),
        ([2, 0, 1], [2, 0, 1], {"palette": [9, 9, 9, 200, 0, 0, 0, 0, 90]}),
    ],
)
def test_mask_sample(tmp_path: Path, values: list[int], wanted: list[int], how: dict[str, Any]) -> None:
    """255 would be ignored where it is the object, or ids with gaps be labels that no class has."""
    found = recognise(drawn.masks(tmp_path, values, **how))
    data = built(found, "train")
    sample = data[2]
    assert labels_of(sample) == wanted
    assert Path(sample["img_path"]).name == "2.jpg"
    check_labels(data, "train", trains=True)


def test_values_of_one_part_do_not_decide(tmp_path: Path) -> None:
    """A validation part that happens to hold 0 and 255 alone would take the ignored pixels for the object."""
    root = drawn.masks(tmp_path, [0, 1, 255])
    for path in root.glob("masks/val/*.png"):
        drawn.mask(path, [0, 255])
    assert labels_of(built(recognise(root), "val")[0]) == [0, 255]


def test_ids_that_were_not_there(tmp_path: Path) -> None:
    """An id that no class has would be trained as the class whose label it equals by chance."""
    root = drawn.masks(tmp_path, [0, 7, 11])
    found = recognise(root)
    drawn.mask(root / "masks/train/4.png", [0, 1])
    with pytest.raises(UserError, match="has 640 pixels of the unknown id 1 "):
        check_labels(built(found, "train"), "train", trains=True)


def test_color_sample(tmp_path: Path) -> None:
    """Colors would be read as gray values, or 'ignore' be a class; an unknown one must not pass."""
    root = drawn.masks(tmp_path, [[10, 20, 30], [200, 0, 0], [0, 0, 0]])
    (root / "classes.txt").write_text("ignore 0 0 0\ndoor 200 0 0\nwall 10 20 30\n")
    found = recognise(root)
    data = built(found, "train")
    assert found.classes == ("door", "wall") and labels_of(data[0]) == [1, 0, 255]
    check_labels(data, "train", trains=True)
    drawn.mask(root / "masks/train/3.png", [[10, 20, 30], [1, 2, 3]])
    with pytest.raises(UserError, match="color that no class has"):
        data[3]
    with pytest.raises(UserError, match="unknown id 254"):
        check_labels(data, "train", trains=True)


def test_masks_split_by_us(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A validation map would be trained on, or the part of a folder be refused as less than half of it."""
    found = write_lists(split(recognise(drawn.masks(tmp_path, [0, 1], splits=(".",)))), tmp_path / "run")
    seen = {}
    for part, count in (("train", 4), ("val", 1)):
        data = built(found, part)
        _, images = check_labels(data, part, trains=part == "train")
        seen[part] = {path.name for path in images}
        assert f"{part}: {count} of {count} images used" in capsys.readouterr().out
    assert len(seen["train"]) == 4 and len(seen["val"]) == 1 and seen["train"].isdisjoint(seen["val"])


def test_cityscapes_sample(tmp_path: Path) -> None:
    """Train ids would not become the labels of the classes that are there."""
    for part in ("train", "val"):
        drawn.picture(tmp_path / f"leftImg8bit/{part}/bonn/bonn_0_leftImg8bit.png")
        drawn.mask(tmp_path / f"gtFine/{part}/bonn/bonn_0_gtFine_labelTrainIds.png", [0, 10, 255])
    assert labels_of(built(recognise(tmp_path), "val")[0]) == [0, 1, 255]


def test_classes_chosen_by_the_user(tmp_path: Path) -> None:
    """Objects of a class that was left out would be trained under another one's label."""
    boxes = with_classes(recognise(one_file(tmp_path / "boxes")), ["b"])
    sample = built(boxes, "train")[0]
    assert sample["gt_bboxes_labels"].tolist() == [0] and sample["gt_bboxes"].tensor[0].tolist() == [
        12,
        4,
        20,
        10,
    ]
    assert boxes.objects == {"b": 10}
    masks = recognise(drawn.masks(tmp_path / "masks", [0, 3, 4]))
    assert labels_of(built(with_classes(masks, ["class 4", "class 0"]), "train")[0]) == [0, 255, 1]
    assert with_classes(masks, ["sky", "road", "car"]).classes == ("sky", "road", "car")


def test_split_is_by_class_and_deterministic() -> None:
    """A rare class could be missing from one part, or a resumed run have another split."""
    classes: dict[str, set[Any]] = {f"{i:03d}": {"common"} for i in range(100)}
    for i in range(10):
        classes[f"{i:03d}"] = {"rare", "common"}
    train, val = stratified(classes, 0, 0.2)
    assert sorted(train + val) == sorted(classes) and len(val) == 20
    assert Counter("rare" in classes[name] for name in val) == {True: 2, False: 18}
    again = stratified(dict(reversed(classes.items())), 0, 0.2)
    assert (train, val) == again
    assert set(val) != set(stratified(classes, 1, 0.2)[1])


def test_split_keeps_a_single_example_for_training() -> None:
    """The only image of a class would be scored and never trained on."""
    for seed in range(5):
        train, _ = stratified({"a": {1}, "b": {2}, "c": {2}, "d": {2}, "e": {2}}, seed, 0.2)
        assert "a" in train
        rng = np.random.default_rng(seed)
        many = {f"{i:02d}": set(rng.choice(40, 3, replace=False).tolist()) for i in range(30)}
        train, val = stratified(many, seed, 0.2)
        assert {c for name in val for c in many[name]} <= {c for name in train for c in many[name]} and len(
            val
        ) >= 4
    assert [len(part) for part in stratified({"a": {1}, "b": {1}}, 0, 0.2)] == [1, 1]
