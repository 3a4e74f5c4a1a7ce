"""Label images hold every label as it is, and are whole at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_transfer.evaluation import MSTIoUMetric
from mst_transfer.evaluation.label_images import save_image, unsigned, write_label_image
from mst_transfer.prediction.drawing import class_colors, draw_segmentation
from mst_transfer.prediction.files import PredictionFiles
from mst_transfer.prediction.predictor import Predictor, Segmentation


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG" and len(image.getbands()) == 1
        return np.asarray(image)


@pytest.mark.parametrize(("count", "bits"), [(2, 8), (256, 8), (257, 16), (1000, 16), (65536, 16)])
def test_labels_come_back_as_they_were(tmp_path: Path, count: int, bits: int) -> None:
    """Label 256 would be written as 0, the name of another class."""
    labels = np.array([[0, 1, count - 1], [count // 2, count - 2, 0]])
    write_label_image(labels, tmp_path / "a.png", range(count))
    assert read(tmp_path / "a.png").tolist() == labels.tolist()
    assert (tmp_path / "a.png").read_bytes()[24] == bits  # IHDR's bit depth


def test_ids_decide_the_depth(tmp_path: Path) -> None:
    """A small data set with large ids would get wrong ones, or a folder hold images of both depths."""
    for name, labels in (("low", [[0, 0]]), ("high", [[0, 1]])):
        write_label_image(np.array(labels), tmp_path / f"{name}.png", [7, 300])
        assert (tmp_path / f"{name}.png").read_bytes()[24] == 16
    assert read(tmp_path / "low.png").tolist() == [[7, 7]] and read(tmp_path / "high.png").tolist() == [
        [7, 300]
    ]


@pytest.mark.parametrize(
    ("labels", "ids", "message"),
    [
        ([[0, -1]], [0, 1], "label -1 is not one of 0 to 1"),
        ([[0, 1]], [0, -1], "label -1 is not one of 0 to 0"),
        ([[0, 300]], range(100), "label 300 is not one of 0 to 99"),
        ([[0, 1]], [0, 65536], "label 65536 is above 65535"),
    ],
)
def test_what_no_png_can_hold_is_refused(tmp_path: Path, labels: Any, ids: Any, message: str) -> None:
    """A negative or too large label would be wrapped into another class's."""
    with pytest.raises(UserError, match=message):
        write_label_image(np.array(labels), tmp_path / "a.png", ids)
    assert not list(tmp_path.iterdir())


def test_the_smallest_type_is_the_same_for_all_images() -> None:
    """The type of a label map would depend on what is in the picture."""
    assert unsigned(np.array([0]), 255).dtype == np.uint8
    assert unsigned(np.array([0]), 256).dtype == np.uint16


class Model:
    """A segmentor of many classes that sees a ramp."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = torch.as_tensor(labels)

    def test_step(self, batch: Any) -> list[Any]:
        return [type("Sample", (), {"pred_sem_seg": PixelData(data=self.labels[None])})]


def predictor(labels: np.ndarray, count: int) -> Predictor:
    made = Predictor.__new__(Predictor)
    made.model, made.detects, made.classes = Model(labels), False, tuple(f"class {i}" for i in range(count))
    made.palette, made.device = None, torch.device("cpu")
    made.load = lambda image: {}  # type: ignore[method-assign]
    return made


def test_predictions_of_300_classes(tmp_path: Path) -> None:
    """Class 256 and above would be predicted, drawn, counted and written as other classes."""
    labels = np.repeat(np.array([[0, 44, 256, 299]]), 4, 0)  # 300 - 256 = 44
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    found = predictor(labels, 300)(tmp_path / "a.png")
    assert isinstance(found, Segmentation)
    assert found.label_map.tolist() == labels.tolist() and found.label_map.dtype == np.uint16
    shares = {name: share for name, share in found.shares.items() if share}
    assert shares == dict.fromkeys(("class 0", "class 44", "class 256", "class 299"), 0.25)
    colors = class_colors(300)
    picture = np.asarray(draw_segmentation(np.zeros((480, 480, 3), np.uint8), large(found), colors))
    for column, label in enumerate(labels[0]):
        assert picture[240, 120 * column + 60].tolist() == np.round(colors[label] / 2).tolist()
    written = PredictionFiles.__new__(PredictionFiles)
    written.predictor, written.out, written.ids = predictor(labels, 300), tmp_path / "out", list(range(300))
    written.colors = colors
    entry = written._one(tmp_path / "a.png", written.predictor("a.png"), 1, Path("a"))
    assert read(tmp_path / "out" / entry["label_map"]).tolist() == labels.tolist()
    assert entry["shares"]["class 299"] == 0.25


def large(found: Segmentation) -> Segmentation:
    """Pictures below 480 pixels are drawn larger; this one is not."""
    return Segmentation(found.image, found.classes, found.label_map.repeat(120, 0).repeat(120, 1))


@pytest.mark.parametrize("strange", [-1, 3])
def test_a_label_without_a_name_is_refused(strange: int) -> None:
    """A model with more classes than names would give the pixels of the others to some class."""
    with pytest.raises(UserError, match=f"label {strange} is not one of 0 to 2"):
        predictor(np.array([[0, strange]]), 3)("a.png")


def test_the_metrics_label_images(tmp_path: Path) -> None:
    """The result files of a test would hold other classes than its scores count."""
    metric = MSTIoUMetric(out_dir=str(tmp_path), ignore_index=65535)
    metric.dataset_meta = {"classes": [f"class {i}" for i in range(400)]}
    labels = torch.tensor([[[0, 143], [255, 399]]])  # 399 - 256 = 143
    label = {"data": labels}
    metric.process(None, [{"pred_sem_seg": label, "gt_sem_seg": label, "img_path": "b/a.jpg"}])
    assert read(tmp_path / "a.png").tolist() == labels[0].tolist()
    assert metric.compute_metrics(metric.results)["mIoU"] == 100.0


def test_two_processes_may_write_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that a padded sampler gives one image, one would fail, or half an image be left."""
    first, second = (Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (1, 2))
    save, path = Image.Image.save, tmp_path / "a.png"

    def interrupted(image: Image.Image, *arguments: Any, **options: Any) -> None:
        save(image, *arguments, **options)
        monkeypatch.setattr(Image.Image, "save", save)
        save_image(second, path)  # another process is faster
        assert read(path).tolist() == [[2] * 8] * 8

    monkeypatch.setattr(Image.Image, "save", interrupted)
    save_image(first, path)
    assert read(path).tolist() == [[1] * 8] * 8 and [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_failed_picture_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half pictures of a full disk would stay in the results folder."""
    save_image(Image.new("L", (4, 4), 5), tmp_path / "a.png")

    def full(image: Image.Image, part: Path, **options: Any) -> None:
        Path(part).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"a\.png cannot be written \(No space left"):
        save_image(Image.new("L", (4, 4), 6), tmp_path / "a.png")
    assert read(tmp_path / "a.png").tolist() == [[5] * 4] * 4
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
