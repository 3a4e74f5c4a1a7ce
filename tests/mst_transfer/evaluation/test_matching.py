"""Matches kept image by image against pycocotools, on the whole set and on sets in which images are drawn again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mst_toolkit.image_scores import DetectionImages
from mst_transfer.evaluation import score_coco
from mst_transfer.evaluation.coco_scores import load_ground_truth
from mst_transfer.evaluation.matching import match_detections
from tests.mst_transfer.evaluation.test_coco_scores import NAMES, official, scene

IDS = sorted(NAMES)


def detections_of(truth: dict[str, Any], found: list[dict[str, Any]], iou_type: str) -> DetectionImages:
    matches = match_detections(truth, found, iou_type, IDS)
    names = np.array([str(i) for i in matches.image_ids])
    arrays = (matches.scores, matches.image, matches.label, matches.hit, matches.ignored, matches.objects)
    return DetectionImages(names, np.array([NAMES[i] for i in IDS]), *arrays)


def distinct(found: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The detections with a score of its own each: COCO leaves the order of equal ones to the ids."""
    scores = np.random.default_rng(seed).permutation(len(found)) / len(found)
    return [{**entry, "score": float(score)} for entry, score in zip(found, scores, strict=True)]


def drawn(
    truth: dict[str, Any], found: list[dict[str, Any]], counts: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A data set in which the images stand as often as they are drawn, under new ids, in the order of the old."""
    images = sorted(truth["images"], key=lambda image: image["id"])
    copies = [image["id"] for image, count in zip(images, counts, strict=True) for _ in range(count)]
    by_id = {image["id"]: image for image in images}
    content: dict[str, Any] = {"categories": truth["categories"], "images": [], "annotations": []}
    results: list[dict[str, Any]] = []
    for new, old in enumerate(copies, 1):
        content["images"].append({**by_id[old], "id": new, "file_name": f"{new}.jpg"})
        for entry in (a for a in truth["annotations"] if a["image_id"] == old):
            content["annotations"].append({**entry, "image_id": new, "id": len(content["annotations"]) + 1})
        results += [{**entry, "image_id": new} for entry in found if entry["image_id"] == old]
    return content, results


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1])
def test_whole_set_equals_pycocotools(tmp_path: Path, iou_type: str, seed: int) -> None:
    """The table's interval would be of another AP than its value: with ties, crowds, or more than 100 detections."""
    truth, found = scene(seed)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    content = load_ground_truth(path, iou_type == "segm")
    ours = detections_of(content, found, iou_type)
    stats, precision = official(path, copy.deepcopy(found), iou_type)
    whole = np.ones((1, len(truth["images"])), np.int64)
    for metric, expected in zip(("AP", "AP50", "AP75"), stats[:3], strict=True):
        assert ours.mean(whole, metric) == pytest.approx([expected], abs=1e-12)
    for index in range(len(IDS)):
        part = precision[:, :, index, 0, 2]
        expected = float(part[part > -1].mean()) if (part > -1).any() else np.nan
        assert ours.per_class(whole)[0, index] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.isnan(ours.per_class(whole)[0, IDS.index(90)]) and ours.ignored.any()


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_resamples_equal_an_evaluation_of_the_drawn_images(iou_type: str) -> None:
    """An interval over images would be of something else than COCO's AP of the drawn images."""
    truth, found = scene(2)
    found = distinct(found, 0)
    ours = detections_of(truth, found, iou_type)
    generator = np.random.default_rng(1)
    count = len(truth["images"])
    present = (ours.objects > 0).sum(1)
    few = int(np.where(present == 0, 99, present).argmin())  # an image that lacks classes
    counts = np.stack(
        [np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(5)]
        + [np.eye(count, dtype=np.int64)[few] * 3]
    )
    every = {metric: ours.per_class(counts, metric) for metric in ("AP", "AP50", "AP75")}
    mean = ours.mean(counts)
    for row, drawing in enumerate(counts):
        content, results = drawn(truth, found, drawing)
        expected = score_coco(content, results, iou_type, "pycocotools", IDS)
        assert mean[row] == pytest.approx(expected.statistics["mAP"], abs=1e-12)
        for index, category in enumerate(IDS):
            for metric, values in every.items():
                wanted = expected.per_class[NAMES[category]][metric]
                wanted = np.nan if wanted is None else wanted
                assert values[row, index] == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    assert np.isnan(every["AP"][-1]).sum() > np.isnan(every["AP"][0]).sum()


def test_images_without_objects_count() -> None:
    """False alarms on empty images would cost nothing, or an empty image in a resample crash it."""
    truth, _ = scene()
    empty = [image["id"] for image in truth["images"] if image["id"] in (4, 54)]
    objects = [a for a in truth["annotations"] if a["category_id"] == 12 and not a["iscrowd"]]
    right = [{"image_id": a["image_id"], "category_id": 12, "bbox": a["bbox"], "score": 0.5} for a in objects]
    wrong = [
        {"image_id": i, "category_id": 12, "bbox": [0.0, 0.0, 9.0, 9.0], "score": 0.9} for i in empty * 5
    ]
    content = {**truth, "annotations": objects}
    whole = np.ones((1, len(truth["images"])), np.int64)
    alone = detections_of(content, right, "bbox").per_class(whole)[0, IDS.index(12)]
    with_wrong = detections_of(content, right + wrong, "bbox")
    assert alone == 1 and with_wrong.per_class(whole)[0, IDS.index(12)] < 0.9
    without = whole.copy()
    without[0, [place for place, image in enumerate(truth["images"]) if image["id"] in empty]] = 0
    assert with_wrong.per_class(without)[0, IDS.index(12)] == 1


def test_nothing_found_and_nothing_to_find() -> None:
    """A model that finds nothing would crash the interval; a set without objects would score 0 instead of nothing."""
    truth, found = scene()
    whole = np.ones((1, len(truth["images"])), np.int64)
    assert detections_of(truth, [], "bbox").mean(whole)[0] == 0
    assert np.isnan(detections_of({**truth, "annotations": []}, found, "bbox").mean(whole)[0])
