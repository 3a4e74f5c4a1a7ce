"""Trivial baselines against values worked out by hand and against the metrics they stand beside."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.layouts import CITYSCAPES_CLASSES
from mst_transfer.evaluation.baselines import frequent_box_map, position_prior


def write_maps(root: Path, split: str, *maps: list[list[int]] | np.ndarray) -> None:
    """Write label maps in Cityscapes' layout; nobody opens their images."""
    for index, labels in enumerate(maps):
        image = root / f"leftImg8bit/{split}/a/{index}_leftImg8bit.png"
        label_map = root / f"gtFine/{split}/a/{index}_gtFine_labelTrainIds.png"
        for path in (image, label_map):
            path.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
        Image.fromarray(np.asarray(labels, np.uint8)).save(label_map)


def miou(root: Path, ids: Sequence[int] = range(19)) -> float | None:
    """mIoU of the prior on val, as a fraction."""
    return position_prior(root, "val", [CITYSCAPES_CLASSES[i] for i in ids]).mean_iou


def write_coco(path: Path, images: int, boxes: list[tuple[int, str, list[float]]], names: list[str]) -> Path:
    """Write a COCO JSON of 100x100 images with (image id, class name, box) annotations, ids from 1."""
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": 100, "width": 100} for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": names.index(name) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i, (image, name, box) in enumerate(boxes, start=1)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_position_prior_by_hand(tmp_path: Path) -> None:
    """Wrong votes, wrong IoU, or pixels of 255 counted: the bar of the quickstart would lie."""
    train = [[0, 1], [13, 13]], [[0, 1], [13, 0]], [[1, 1], [255, 0]], [[0, 0], [13, 0]]
    write_maps(tmp_path, "train", *train)
    write_maps(tmp_path, "val", [[0, 1], [13, 13]], [[1, 1], [255, 0]])
    # prior [[0, 1], [13, 0]]; class 0: 2 of 4, class 1: 2 of 3, class 13: 1 of 2
    expected = (2 / 4 + 2 / 3 + 1 / 2) / 3
    assert miou(tmp_path, (0, 1, 13)) == miou(tmp_path) == pytest.approx(expected)


def test_position_prior_resizes_to_each_map(tmp_path: Path) -> None:
    """Maps of several sizes would crash the baseline or be compared at shifted places."""
    write_maps(tmp_path, "train", [[0, 2], [8, 8]], np.kron([[0, 2], [8, 8]], np.ones((3, 3))))
    write_maps(tmp_path, "val", np.kron([[0, 2], [8, 8]], np.ones((4, 5))), [[0, 2], [8, 8]])
    assert miou(tmp_path) == 1.0


def test_position_prior_equals_iou_metric(tmp_path: Path) -> None:
    """Another IoU than mmseg's would make the margin over the baseline meaningless."""
    from mmseg.evaluation import IoUMetric

    rng = np.random.default_rng(0)
    classes = 5  # the last one never occurs and must not count as 0
    maps = rng.choice([0, 1, 2, 3, 255], size=(9, 6, 7), p=[0.4, 0.3, 0.15, 0.05, 0.1]).astype(np.uint8)
    write_maps(tmp_path, "train", *maps[:5])
    write_maps(tmp_path, "val", *maps[5:])
    votes = np.stack([(maps[:5] == index).sum(0) for index in range(classes)])
    prior = torch.from_numpy(votes.argmax(0))
    areas = [
        IoUMetric.intersect_and_union(prior, torch.from_numpy(truth).long(), classes, 255)
        for truth in maps[5:]
    ]
    totals = [sum(values) for values in zip(*areas, strict=True)]
    iou = IoUMetric.total_area_to_metrics(*totals, ["mIoU"])["IoU"]
    assert np.isnan(iou[-1])
    assert miou(tmp_path, range(classes)) == pytest.approx(np.nanmean(iou), abs=1e-6)


def test_position_prior_of_nothing_is_an_error(tmp_path: Path) -> None:
    """A division by zero instead of a message when a folder has no labelled pixel."""
    for split in ("train", "val"):
        write_maps(tmp_path, split, [[255, 255]])
    with pytest.raises(UserError, match="known class"):
        miou(tmp_path)


def test_frequent_box_by_hand(tmp_path: Path) -> None:
    """The wrong box, wrong class ids or another AP: 'above its baseline' would mean nothing."""
    near = [[10, 10, 40, 40], [11, 10, 40, 40], [9, 10, 40, 40], [60, 60, 30, 30], [70, 5, 20, 20]]
    train = write_coco(
        tmp_path / "train.json", 5, [(i + 1, "car", box) for i, box in enumerate(near)], ["car"]
    )
    exact = write_coco(tmp_path / "exact.json", 2, [(i, "car", [10, 10, 40, 40]) for i in (1, 2)], ["car"])
    assert frequent_box_map(train, exact) == pytest.approx(100)
    # A ground truth of 0.62 of the predicted box passes the thresholds 0.50, 0.55 and 0.60 of ten.
    partial = write_coco(tmp_path / "partial.json", 1, [(1, "car", [10, 10, 40, 24.8])], ["car"])
    assert frequent_box_map(train, partial) == pytest.approx(30)
    # In the first image the box is a false positive of the same score: precision 1/2 at every recall.
    second = write_coco(tmp_path / "second.json", 2, [(2, "car", [10, 10, 40, 40])], ["car"])
    assert frequent_box_map(train, second) == pytest.approx(50)


def test_frequent_box_is_the_one_met_most_often(tmp_path: Path) -> None:
    """A box in the middle of many that it misses would be taken for the frequent one."""
    star = [
        [30 + x, 30 + y, 20, 20] for x, y in ((0, 0), (7.6, 0), (-7.6, 0), (0, 7.6), (0, -7.6))
    ]  # IoU 0.45
    twice = [[70, 70, 20, 20]] * 2
    train = write_coco(tmp_path / "train.json", 1, [(1, "car", box) for box in star + twice], ["car"])
    val = write_coco(tmp_path / "val.json", 1, [(1, "car", [70, 70, 20, 20])], ["car"])
    assert frequent_box_map(train, val) == pytest.approx(100)


def test_frequent_box_matches_classes_by_name(tmp_path: Path) -> None:
    """Category ids numbered differently in train and val would score one class with another's box."""
    boxes = {"bus": [0.0, 0.0, 90.0, 90.0], "person": [50.0, 50.0, 10.0, 30.0]}
    both = [(1, name, box) for name, box in boxes.items()]
    train = write_coco(tmp_path / "train.json", 1, both, ["bus", "person"])
    val = write_coco(tmp_path / "val.json", 1, both, ["dog", "person", "bus"])
    assert frequent_box_map(train, val) == pytest.approx(100)
    dogs = write_coco(tmp_path / "dogs.json", 1, [(1, "dog", [0, 0, 9, 9])], ["dog"])
    with pytest.raises(UserError, match="same categories"):
        frequent_box_map(train, dogs)


@pytest.mark.skipif("MST_REAL_DATA" not in os.environ, reason="real data not present")
def test_position_prior_on_camvid() -> None:
    """The published bar of the real-photo check (16.7) would no longer be what is computed."""
    root = Path(os.environ["MST_REAL_DATA"], "camvid-as-cityscapes")
    assert miou(root) == pytest.approx(0.167, abs=0.0005)


def test_crowds_are_no_boxes(tmp_path: Path) -> None:
    """A crowd's box, as large as the image, would be the most frequent one."""
    boxes = [(1, "car", [10.0, 10.0, 40.0, 40.0]), *((i, "car", [0.0, 0.0, 100.0, 100.0]) for i in (2, 3, 4))]
    train = write_coco(tmp_path / "train.json", 4, boxes, ["car"])
    content = json.loads(train.read_text())
    for annotation in content["annotations"][1:]:
        annotation["iscrowd"] = 1
    train.write_text(json.dumps(content))
    val = write_coco(tmp_path / "val.json", 1, [(1, "car", [10, 10, 40, 40])], ["car"])
    assert frequent_box_map(train, val) == pytest.approx(100)
