"""mIoU, accuracies and the confusion matrix, against a loop and against cityscapesscripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.layouts import CITYSCAPES_CLASSES
from mst_transfer.evaluation import MSTIoUMetric, SegmentationScores, confusion_matrix, iou_metric
from mst_transfer.evaluation.label_images import cityscapes_label_ids, label_image_path
from mst_transfer.evaluation.segmentation_scores import count_pixels

ROAD, CAR = 7, 26


def blocks(rng: np.random.Generator, values: list[int], height: int, width: int, size: int) -> np.ndarray:
    """A label map of squares."""
    grid = rng.choice(values, (-(-height // size), -(-width // size)))
    return np.kron(grid, np.ones((size, size), np.int64))[:height, :width]


def test_confusion_matrix_against_a_loop() -> None:
    """Rows and columns exchanged, ignored pixels counted, or a class shifted."""
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 3, 255], (17, 23))
    prediction = rng.integers(0, 5, (17, 23))
    expected = np.zeros((5, 5), int)
    for true, predicted in zip(truth.flat, prediction.flat, strict=True):
        if true != 255:
            expected[true, predicted] += 1
    assert (confusion_matrix(prediction, truth, 5) == expected).all()
    assert (
        confusion_matrix(prediction, np.where(truth == 255, 99, truth), 5, ignore_index=99) == expected
    ).all()


def test_confusion_matrix_refuses_strange_labels() -> None:
    """A label beyond the classes would be counted as another class."""
    good, bad = np.array([[0, 1]]), np.array([[0, 2]])
    with pytest.raises(ValueError, match="ground truth has label 2"):
        confusion_matrix(good, bad, 2)
    with pytest.raises(ValueError, match="prediction has label 2"):
        confusion_matrix(bad, good, 2)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(good, good.T, 2)


def test_scores_by_hand() -> None:
    """A wrong formula, or a class that does not occur counted as 0."""
    matrix = np.array([[3, 1, 0, 0], [2, 4, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    scores = SegmentationScores(matrix, ("a", "b", "absent", "only predicted"))
    assert {name: values["IoU"] for name, values in scores.per_class.items()} == {
        "a": 3 / 6,
        "b": 4 / 9,
        "absent": None,
        "only predicted": 0.0,
    }
    assert scores.mean_iou == pytest.approx((3 / 6 + 4 / 9 + 0) / 3)
    assert scores.mean_accuracy == pytest.approx((3 / 4 + 4 / 8) / 2)
    assert scores.pixel_accuracy == pytest.approx(7 / 12)
    assert scores.per_class["b"]["share"] == pytest.approx(8 / 12)
    shares = [[3 / 4, 1 / 4, 0, 0], [2 / 8, 4 / 8, 0, 2 / 8], [np.nan] * 4, [np.nan] * 4]
    np.testing.assert_allclose(scores.shares, shares)


def sample(prediction: np.ndarray, truth: np.ndarray, image: Path) -> dict[str, Any]:
    """What MMEngine's evaluator hands to a metric."""
    return {
        "pred_sem_seg": {"data": torch.from_numpy(prediction)[None]},
        "gt_sem_seg": {"data": torch.from_numpy(truth)[None]},
        "img_path": str(image),
    }


def test_equals_cityscapesscripts(tmp_path: Path) -> None:
    """mIoU would not be the official one, or the PNGs hold train ids, another size or a name it does not find."""
    import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as official
    from cityscapesscripts.helpers.labels import id2label

    rng = np.random.default_rng(0)
    known = [label for label in id2label if 0 <= label and label not in (19, 31)]  # two classes do not occur
    metric = MSTIoUMetric(
        out_dir=str(tmp_path / "results"),
        label_ids=cityscapes_label_ids(CITYSCAPES_CLASSES),
        image_root=str(tmp_path / "leftImg8bit/val"),
    )
    metric.dataset_meta = {"classes": CITYSCAPES_CLASSES}
    maps = []
    for index, (city, height, width) in enumerate(
        (("aachen", 64, 128), ("aachen", 64, 128), ("zürich", 50, 90))
    ):
        ids = blocks(rng, known, height, width, 7)  # label ids, those that the evaluation ignores among them
        truth = np.vectorize(lambda i: id2label[i].trainId % 256)(ids)
        guess = np.where(truth == 255, 0, truth)
        prediction = np.where(
            rng.random(ids.shape) < 0.7, guess, blocks(rng, list(range(16)), height, width, 5)
        )
        name = f"{city}_{index:06d}_000019"
        path = tmp_path / f"gtFine/val/{city}/{name}_gtFine_labelIds.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids.astype(np.uint8)).save(path)
        maps.append(str(path))
        metric.process(
            None, [sample(prediction, truth, tmp_path / f"leftImg8bit/val/{city}/{name}_leftImg8bit.png")]
        )
        written = np.asarray(Image.open(tmp_path / f"results/{city}/{name}_leftImg8bit.png"))
        assert written.shape == (height, width) and written.dtype == np.uint8
        assert (written == np.array(cityscapes_label_ids(CITYSCAPES_CLASSES))[prediction]).all()
    metrics = metric.compute_metrics(metric.results)

    official.args.predictionPath, official.args.predictionWalk = str(tmp_path / "results"), None
    official.args.JSONOutput, official.args.quiet = False, True
    official.args.evalInstLevelScore, official.args.evalPixelAccuracy = False, True
    found = [official.getPrediction(official.args, path) for path in maps]
    expected = official.evaluateImgLists(found, maps, official.args)
    assert 30 < 100 * expected["averageScoreClasses"] < 80
    assert metrics["mIoU"] == pytest.approx(100 * expected["averageScoreClasses"], abs=1e-9)
    for name, values in metric.report["per_class"].items():
        official_iou = expected["classScores"][name]
        assert values["IoU"] == (None if np.isnan(official_iou) else pytest.approx(official_iou, abs=1e-12))
    assert sum(values["IoU"] is None for values in metric.report["per_class"].values()) >= 1


def test_equals_mmseg_on_small_images() -> None:
    """mAcc and aAcc would not be mmseg's."""
    from mmseg.evaluation import IoUMetric

    rng = np.random.default_rng(1)
    ours, theirs = MSTIoUMetric(), IoUMetric()
    for metric in (ours, theirs):
        metric.dataset_meta = {"classes": tuple("abcdef")}
    for index in range(4):
        truth = rng.choice([0, 1, 2, 3, 255], (30, 40))
        prediction = np.where((truth < 4) & (rng.random((30, 40)) < 0.5), truth, rng.integers(0, 5, (30, 40)))
        for metric in (ours, theirs):
            metric.process({}, [sample(prediction, truth, Path(f"{index}.png"))])
    expected = theirs.compute_metrics(theirs.results)
    assert ours.compute_metrics(ours.results) == pytest.approx(
        expected, abs=0.006
    )  # mmseg rounds to two digits


def test_counts_beyond_float32() -> None:
    """Pixels of a whole validation set added in float32, as mmseg does, would be lost."""
    metric = MSTIoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    matrix = np.array([[2**24, 0], [1, 0]])
    metric.compute_metrics([matrix, np.array([[1, 0], [0, 0]])])
    assert metric.report["confusion_matrix"]["pixels"] == [[2**24 + 1, 0], [1, 0]]


def test_label_ids_are_not_train_ids() -> None:
    """A submission with train ids scores near 0 on the official server."""
    assert cityscapes_label_ids(("car", "road")) == [CAR, ROAD]
    with pytest.raises(UserError, match="tarmac"):
        cityscapes_label_ids(("tarmac",))


def test_label_images_keep_their_folders(tmp_path: Path) -> None:
    """Two cities' images of one name would overwrite each other."""
    root = tmp_path / "leftImg8bit/val"
    assert label_image_path(root / "ulm/a.jpg", root, "out") == Path("out/ulm/a.png")
    assert label_image_path("/elsewhere/a.jpg", root, "out") == Path("out/a.png")


def test_nothing_to_score_is_an_error() -> None:
    """A folder of empty label maps would give a mIoU of NaN, which no JSON reader takes."""
    metric = MSTIoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    metric.process({}, [sample(np.zeros((2, 2), int), np.full((2, 2), 255), Path("photo.png"))])
    with pytest.raises(UserError, match="none of 1 label maps"):
        metric.compute_metrics(metric.results)


def test_labels_to_be_ignored_are_the_configs() -> None:
    """Another ignore_index than 255 would be scored as a class, or refused; 255 would be left out silently."""
    metric = MSTIoUMetric(ignore_index=1)
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    prediction, truth = np.array([[0, 1], [2, 2]]), np.array([[0, 1], [1, 2]])
    metric.process({}, [sample(prediction, truth, Path("photo.png"))])
    assert metric.results[0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    with pytest.raises(UserError, match="label 255"):
        metric.process({}, [sample(prediction, np.full((2, 2), 255), Path("photo.png"))])


class OnGPU(torch.Tensor):
    """Says that it is on a GPU."""

    is_cuda = True


def test_a_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image's scores would make a GPU idle, the last ones be lost, or a strange label be charged to another."""
    waits: list[int] = []

    def copies(counts: torch.Tensor) -> Any:
        return lambda: waits.append(int(counts[0])) or counts.as_subclass(torch.Tensor)

    monkeypatch.setattr(iou_metric, "count_pixels", lambda *maps: count_pixels(*maps).as_subclass(OnGPU))
    monkeypatch.setattr(iou_metric, "to_host", copies)
    metric = MSTIoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    for pixels in (1, 2, 3):
        maps = [np.zeros((1, pixels), int)] * 2
        metric.process({}, [sample(*maps, Path(f"{pixels}.png"))])
        assert waits == list(range(1, pixels))
    assert metric.evaluate(3)["aAcc"] == 100.0 and waits == [1, 2, 3]
    assert metric.report["images"] == 3 and metric.report["confusion_matrix"]["pixels"] == [[6, 0], [0, 0]]
    metric.process({}, [sample(np.zeros((1, 1), int), np.full((1, 1), 9), Path("bad.png"))])
    with pytest.raises(UserError, match=r"bad\.png.*label 9"):
        metric.process({}, [sample(*maps, Path("good.png"))])


def test_strange_label_names_the_file() -> None:
    """A label map with an unknown id would stop the test with an index and no file."""
    metric = MSTIoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    bad = sample(np.zeros((2, 2), int), np.full((2, 2), 9), Path("photo.png")) | {"seg_map_path": "map.png"}
    with pytest.raises(UserError, match=r"map\.png.*photo\.png.*label 9"):
        metric.process({}, [bad])
