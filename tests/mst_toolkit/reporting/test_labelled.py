"""Labels of a run's data sets, drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.reporting.labelled import LabelledSet, draw, draw_truth
from mst_transfer.prediction.predictions import Detections, Segmentation
from tests.mst_toolkit.reporting.example_runs import (
    CLASSES,
    DETECTION,
    HOSTILE,
    SEGMENTATION,
    detection_data,
    segmentation_data,
    write_run,
)


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    """The drawn scenes with boxes and masks."""
    folder = tmp_path_factory.mktemp("detection")
    data = detection_data(folder / "data")
    run = write_run(folder / "run", DETECTION.replace("@DATA@", str(data)))
    return LabelledSet(load_config(run / "config.py"), "test_dataloader")


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    """The drawn scenes with label maps."""
    folder = tmp_path_factory.mktemp("segmentation")
    data = segmentation_data(folder / "data")
    run = write_run(folder / "run", SEGMENTATION.replace("@DATA@", str(data)))
    return LabelledSet(load_config(run / "config.py"), "train_dataloader")


def test_boxes_and_masks_are_the_files(detection: LabelledSet) -> None:
    """The page would ask whether labels are right and show others: scaled, or in corners and sizes."""
    assert (len(detection), detection.classes) == (9, CLASSES)
    one = detection[0]
    assert isinstance(one.truth, Detections) and one.truth.masks is not None
    assert one.path.name == "<i>1&.png" == detection.paths()[0].name and one.pixels.shape == (64, 64, 3)
    assert one.truth.boxes.tolist() == [[6, 8, 30, 34], [36, 30, 60, 56]]
    assert one.truth.labels.tolist() == [0, 1] and one.truth.scores.tolist() == [1, 1]
    assert one.truth.masks[0, 9:33, 7:29].all() and not one.truth.masks[0, :7].any()


def test_the_drawing_lies_on_the_object(detection: LabelledSet) -> None:
    """A box drawn at another scale than its image would look like a wrong label."""
    one = detection[4]
    empty = draw(
        one.pixels,
        Detections(*([None, CLASSES, np.zeros((0, 4))] + [np.zeros(0)] * 2), None, 64, 64),
        detection.colors,
    )
    drawn = draw_truth(one, detection.colors)
    changed = np.argwhere(np.any(np.asarray(drawn) != np.asarray(empty), 2))
    factor = drawn.width / 64
    left, top, right, bottom = one.truth.boxes[0] * factor
    assert factor >= 3
    assert abs(changed[:, 0].max() - bottom) <= 4 and abs(changed[:, 1].min() - left) <= 4
    assert changed[:, 0].min() >= top - 25 and changed[:, 1].max() >= right - 4


def test_truth_has_no_scores(detection: LabelledSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels given by people would stand there as predictions of score 1.00."""
    said: list[str] = []
    monkeypatch.setattr(
        "mst_transfer.prediction.drawing._draw_label", lambda canvas, text, *rest: said.append(text)
    )
    one = detection[0]
    draw_truth(one, detection.colors)
    draw(one.pixels, one.truth, detection.colors)
    assert sorted(said) == sorted(["scratch", HOSTILE, "scratch 1.00", f"{HOSTILE} 1.00"])


def test_large_images_are_drawn_small(detection: LabelledSet) -> None:
    """Twelve photographs of a phone would fill the memory and the page."""
    pixels = np.zeros((1500, 2000, 3), np.uint8)
    mask = np.zeros((1, 1500, 2000), bool)
    mask[0, 500:1000, 1000:1500] = True
    box = np.array([[1000, 500, 1500, 1000]], np.float32)
    found = Detections(None, CLASSES, box, np.ones(1), np.zeros(1, np.int64), mask, 1500, 2000)
    drawn = np.asarray(draw(pixels, found, detection.colors))
    assert drawn.shape == (360, 480, 3)
    assert drawn[150, 300].any() and not drawn[300, 100].any()
    outline = np.asarray(draw(pixels, replace(found, masks=None), detection.colors))
    assert outline[180, 240].any() and outline[240, 300].any() and not outline[180, 300].any()


def test_label_maps_are_the_files(segmentation: LabelledSet) -> None:
    """Labels of another image, or through a palette, would be shown as the truth."""
    one = segmentation[3]
    assert isinstance(one.truth, Segmentation) and one.path.name == "scene_4.png"
    assert one.truth.label_map.shape == (64, 64)
    assert one.truth.label_map[20, 20] == 1 and one.truth.label_map[2, 2] == 0
    assert [name for name, _ in segmentation.legend()] == ["background", HOSTILE]
    assert abs(segmentation.colors[0].astype(int) - segmentation.colors[1]).max() > 100
    red, green, blue = segmentation.colors[1]
    assert segmentation.legend()[1][1] == f"#{red:02x}{green:02x}{blue:02x}"
    ignored = Segmentation(None, one.truth.classes, np.full((64, 64), 255, np.uint8))
    assert np.array_equal(np.asarray(draw(one.pixels, ignored, segmentation.colors)), one.pixels)
    mixed = np.asarray(draw_truth(one, segmentation.colors)).astype(float)[20, 20]
    assert mixed == pytest.approx(0.4 * one.pixels[20, 20] + 0.6 * segmentation.colors[1], abs=0.51)


def test_every_class_is_among_the_pictures(tmp_path: Path) -> None:
    """A wrong label of a rare class would never be seen."""
    data = detection_data(tmp_path / "data", 40)
    path = data / "annotations/instances_val.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one["category_id"] = 2 if one["image_id"] == 34 else 1
    path.write_text(json.dumps(content))
    run = write_run(tmp_path / "run", DETECTION.replace("@DATA@", str(data)))
    places = LabelledSet(load_config(run / "config.py"), "train_dataloader").choose(4)
    assert len(places) == 4 and 33 in places


def test_missing_data_are_named(tmp_path: Path) -> None:
    """A moved data set would end the report in a traceback."""
    run = write_run(tmp_path / "run", DETECTION.replace("@DATA@", str(tmp_path / "gone")))
    with pytest.raises(UserError, match="gone"):
        LabelledSet(load_config(run / "config.py"), "test_dataloader")
    cfg = load_config(run / "config.py")
    cfg.test_dataloader = None
    with pytest.raises(UserError, match="has no test_dataloader"):
        LabelledSet(cfg, "test_dataloader")
