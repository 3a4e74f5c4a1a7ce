"""COCO scores: ours, faster-coco-eval and pycocotools on one set of detections."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mst_pretrain.runtime.errors import UserError
from mst_transfer.evaluation import score_coco
from mst_transfer.evaluation.coco_metric import coco_results
from mst_transfer.evaluation.coco_scores import LIBRARIES, STATISTICS

HEIGHT, WIDTH = 240, 320
NAMES = {7: "small things", 3: "tram", 90: "absent", 12: "dog"}  # category ids neither sorted nor contiguous


def ellipse(box: list[float]) -> np.ndarray:
    """A filled ellipse in a box, uint8 [H, W]."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    left, top, width, height = box
    inside = ((columns - left - width / 2) / max(width, 1)) ** 2 + (
        (rows - top - height / 2) / max(height, 1)
    ) ** 2
    return np.asfortranarray((inside <= 0.25).astype(np.uint8))


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_masks.encode(mask)
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def scene(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth with crowds, images without object and all sizes; detections of which many are wrong."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": 10 * i + 4, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(14)
    ]
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in images:
        empty = image["id"] in (4, 54)
        for _ in range(0 if empty else 6):
            side = float(rng.choice([12.0, 24.0, 60.0, 80.0, 130.0]))
            box = [*rng.uniform(0, [WIDTH - side, HEIGHT - side]).tolist(), side, side * rng.uniform(0.5, 1)]
            category, crowd = int(rng.choice([7, 3, 12])), int(rng.random() < 0.2)
            mask = ellipse(box)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "bbox": box}
                | {"area": float(mask.sum()), "iscrowd": crowd, "segmentation": rle(mask)}
            )
            for _ in range(rng.integers(0, 4)):
                shifted = (np.array(box) + rng.normal(0, 0.08 * side, 4)).clip(0.5).tolist()
                wrong = category if rng.random() < 0.85 else 3
                score = round(float(rng.random()), 1)  # many equal scores
                detections.append(
                    {"image_id": image["id"], "category_id": wrong, "bbox": shifted, "score": score}
                    | {"segmentation": rle(ellipse(shifted))}
                )
        for _ in range(
            110 if image["id"] == 14 else 3
        ):  # one image has more than 100 detections of one class
            box = rng.uniform(5, 100, 4).tolist()
            detections.append(
                {"image_id": image["id"], "category_id": 7, "bbox": box, "score": float(rng.random() / 2)}
                | {"segmentation": rle(ellipse(box))}
            )
    categories = [{"id": i, "name": name} for i, name in NAMES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def official(path: Path, detections: list[dict[str, Any]], iou_type: str) -> tuple[np.ndarray, np.ndarray]:
    """pycocotools as its documentation calls it: the twelve numbers, and precision [10, 101, classes, 4, 3]."""
    truth = COCO(str(path))
    unneeded = "segmentation" if iou_type == "bbox" else "bbox"
    found = [{key: value for key, value in entry.items() if key != unneeded} for entry in detections]
    evaluation = COCOeval(truth, truth.loadRes(found), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_pycocotools(tmp_path: Path, iou_type: str, library: str) -> None:
    """Our AP would not be the field's: with crowds, empty images, some size, more than 100 detections, or ties."""
    truth, detections = scene()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    scores = score_coco(path, detections, iou_type, library)
    expected, precision = official(path, copy.deepcopy(detections), iou_type)
    assert 0.1 < expected[0] < 0.9 and len(set(expected[:6])) == 6 and (expected[3:6] > 0).all()
    assert list(scores.statistics.values()) == pytest.approx(expected.tolist(), abs=1e-12)
    assert tuple(scores.statistics) == STATISTICS and scores.library.startswith(library)
    for place, category in enumerate(sorted(NAMES)):
        found = scores.per_class[NAMES[category]]
        if category == 90:
            assert set(found.values()) == {None}
            continue
        slices = [precision[:, :, place, 0, 2], precision[0, :, place, 0, 2], precision[5, :, place, 0, 2]]
        slices += [precision[:, :, place, size, 2] for size in (1, 2, 3)]
        expected_class = [float(part[part > -1].mean()) if (part > -1).any() else None for part in slices]
        assert list(found.values()) == pytest.approx(expected_class, abs=1e-12)


def test_equals_faster_coco_eval_itself(tmp_path: Path) -> None:
    """Our use of faster-coco-eval would differ from its documented one, e.g. in the areas that we give it."""
    from faster_coco_eval import COCO as FastCOCO
    from faster_coco_eval import COCOeval_faster

    truth, detections = scene(1)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    for iou_type, unneeded in (("bbox", "segmentation"), ("segm", "bbox")):
        found = [{key: value for key, value in entry.items() if key != unneeded} for entry in detections]
        api = FastCOCO(str(path))
        evaluation = COCOeval_faster(api, api.loadRes(copy.deepcopy(found)), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        ours = score_coco(path, detections, iou_type, "faster-coco-eval").statistics
        assert list(ours.values()) == pytest.approx(list(evaluation.stats[:12]), abs=1e-12)


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_detection_scores_zero(library: str) -> None:
    """A model that finds nothing would crash the test, or have no score."""
    truth, _ = scene()
    assert set(score_coco(truth, [], "bbox", library).statistics.values()) == {0.0}


@pytest.mark.parametrize("library", LIBRARIES)
def test_size_without_objects_is_none(library: str) -> None:
    """COCO's -1 for 'no such object' would enter tables and means as a score."""
    truth, detections = scene()
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] < 96**2]
    scores = score_coco(truth, detections, "segm", library)
    assert scores.statistics["mAP_l"] is None and scores.statistics["AR_l@100"] is None
    assert scores.per_class["dog"]["AP_large"] is None and scores.statistics["mAP_m"] is not None


def test_only_the_wanted_categories_count() -> None:
    """Training on some of a file's categories would be scored on all of them, every other one at 0."""
    truth, detections = scene()
    every = score_coco(truth, detections, "bbox")
    some = score_coco(truth, detections, "bbox", category_ids=[12, 3])
    assert set(some.per_class) == {"tram", "dog"}
    pair = [every.per_class[name]["AP"] for name in ("tram", "dog")]
    assert some.statistics["mAP"] == pytest.approx(np.mean(np.asarray(pair, float)))


@pytest.mark.parametrize(
    ("library", "module"), [("faster-coco-eval", "faster_coco_eval"), ("pycocotools", None)]
)
def test_no_silent_fallback(monkeypatch: pytest.MonkeyPatch, library: str, module: str | None) -> None:
    """A missing library would be replaced by the other one without a word."""
    truth, detections = scene()
    monkeypatch.setitem(sys.modules, module or "pycocotools.coco", None)
    with pytest.raises(UserError, match=f"pip install {library}"):
        score_coco(truth, detections, "bbox", library)


def test_annotation_ids_need_not_be_countable(tmp_path: Path) -> None:
    """An annotation with id 0 is never found by pycocotools: a perfect model would miss it, without a message."""
    truth, detections = scene()
    expected = score_coco(truth, detections, "bbox")
    path = tmp_path / "truth.json"
    for number in (0, 2, "7", 10**30):
        truth["annotations"][0]["id"] = number
        path.write_text(json.dumps(truth))
        assert score_coco(path, detections, "bbox") == expected


def test_results_by_hand() -> None:
    """Boxes would be a pixel too wide or high, or a detection get another's class, score or mask in the files."""
    rles = [{"size": [30, 40], "counts": "a"}, {"size": [30, 40], "counts": "b"}]
    instances = {
        "bboxes": np.array([[1.5, 2.0, 11.5, 22.0], [0.0, 0.0, 40.0, 30.0]], np.float32),
        "scores": np.array([0.75, 0.5], np.float32),
        "labels": np.array([2, 0]),
        "masks": rles,
    }
    heads = [
        {"image_id": 8, "category_id": 30, "score": 0.75},
        {"image_id": 8, "category_id": 10, "score": 0.5},
    ]
    boxes = [[1.5, 2.0, 10.0, 20.0], [0.0, 0.0, 40.0, 30.0]]
    assert coco_results(8, instances, [10, 20, 30], "bbox") == [
        {**head, "bbox": box} for head, box in zip(heads, boxes, strict=True)
    ]
    assert coco_results(8, instances, [10, 20, 30], "segm") == [
        {**head, "segmentation": rle} for head, rle in zip(heads, rles, strict=True)
    ]


def test_result_of_an_unknown_image() -> None:
    """Predictions of another split would be scored as if those images did not exist."""
    truth, detections = scene()
    with pytest.raises(UserError, match="image_id 999"):
        score_coco(truth, [*detections, dict(detections[0], image_id=999)], "bbox")
