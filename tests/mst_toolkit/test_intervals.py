"""Bootstrap intervals against hand-computed cases, known distributions, and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.image_scores import FILE, DetectionImages, LabelImages, from_arrays, save
from mst_toolkit.intervals import Bootstrap, interval, load, paired, resample_counts


def decisions(right: np.ndarray, classes: int = 2, seed: int = 0) -> LabelImages:
    """A classifier that is right on some images."""
    truth = np.random.default_rng(seed).integers(0, classes, len(right))
    predicted = np.where(right, truth, (truth + 1) % classes)
    names = np.array([f"{i}.jpg" for i in range(len(right))])
    return LabelImages.of_decisions(names, np.array([f"c{i}" for i in range(classes)]), truth, predicted)


def toy_detections() -> DetectionImages:
    """Two classes in four images; class b is in the last image alone."""
    objects = np.array([[1, 0], [1, 0], [0, 0], [0, 1]], np.int32)
    every = (1 << 10) - 1
    return DetectionImages(
        np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        np.array(["a", "b"]),
        np.array([0.9, 0.5, 0.7, 0.8]),
        np.array([0, 1, 2, 3], np.int32),
        np.array([0, 0, 0, 1], np.int32),
        np.array([every, every, 0, every], np.uint16),
        np.zeros(4, np.uint16),
        objects,
    )


def test_average_precision_by_hand() -> None:
    """A wrong weight of an image drawn twice, or of a class that is absent in a resample, would move every interval."""
    scores = toy_detections()
    counts = np.array([[1, 1, 1, 1], [1, 1, 2, 0], [2, 1, 0, 1], [0, 0, 4, 0]])
    # class a, ranked: right (a), wrong (c), right (b); recall 0.5 is reached at precision 1, the rest at 2/3 and 2/4
    expected = [(51 + 50 * 2 / 3) / 101, (51 + 50 * 2 / 4) / 101, 1.0, np.nan]
    assert scores.per_class(counts)[:, 0] == pytest.approx(expected, nan_ok=True)
    assert scores.per_class(counts)[:, 1] == pytest.approx([1, np.nan, 1, np.nan], nan_ok=True)
    assert scores.mean(counts) == pytest.approx([(expected[0] + 1) / 2, expected[1], 1, np.nan], nan_ok=True)


def test_label_scores_equal_scikit_learn() -> None:
    """IoU or accuracy of a resample would not be that of its pixels."""
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, (2, 6, 50))
    predicted[0] = truth[0]
    matrices = np.zeros((6, 5, 5), np.int64)  # the last class never occurs
    for image in range(6):
        np.add.at(matrices[image], (truth[image], predicted[image]), 1)
    names = np.array([f"{i}.png" for i in range(6)])
    scores = LabelImages.of_matrices(names, np.array(list("abcde")), matrices)
    counts = resample_counts(6, 3, seed=1)
    for row, drawing in zip(counts, counts, strict=True):
        true, found = (np.repeat(part, drawing, 0).ravel() for part in (truth, predicted))
        iou = jaccard_score(true, found, labels=range(4), average=None)
        recall = recall_score(true, found, labels=range(4), average=None)
        assert scores.per_class(row[None], "IoU")[0, :4] == pytest.approx(iou)
        assert scores.per_class(row[None], "Acc")[0, :4] == pytest.approx(recall)
        assert np.isnan(scores.per_class(row[None])[0, 4])
        assert scores.mean(row[None])[0] == pytest.approx(iou.mean())
        assert scores.mean(row[None], "aAcc")[0] == pytest.approx(accuracy_score(true, found))


def test_interval_of_an_accuracy_is_the_binomial_one() -> None:
    """Resamples of another size, or other percentiles, would give intervals that are too narrow or too wide."""
    right = np.arange(400) < 300
    found = Bootstrap(decisions(right), 4000).main()
    error = 1.96 * 100 * np.sqrt(0.75 * 0.25 / 400)
    assert found["value"] == 75
    assert [found["low"], found["high"]] == pytest.approx([75 - error, 75 + error], abs=0.4)


def test_equal_seeds_give_equal_intervals() -> None:
    """An interval that changes from call to call could not be checked, and two runs would not be paired."""
    scores = decisions(np.arange(50) % 3 > 0, 3)
    same = [Bootstrap(scores, 200, seed=seed).classes() for seed in (4, 4, 5)]
    assert same[0] == same[1] != same[2]
    assert (resample_counts(7, 20, 3) == resample_counts(7, 20, 3)).all()
    assert (resample_counts(7, 20).sum(1) == 7).all()


def test_a_class_absent_in_resamples_has_the_interval_of_the_others() -> None:
    """A rare class would have an interval down to 0 from the resamples in which it cannot be found."""
    bootstrap = Bootstrap(toy_detections(), 300)
    a, b = bootstrap.classes()
    assert list(b.values()) == pytest.approx([100.0] * 3)
    assert a["low"] is not None and a["value"] is not None and a["low"] < a["value"]
    absent = np.isnan(bootstrap.by_class[1:, 1])
    assert 0.2 < absent.mean() < 0.45  # (3/4)^4 = 0.32
    alone = bootstrap.by_class[1:, 0][absent]
    assert bootstrap.by_resample[1:][absent] == pytest.approx(alone, nan_ok=True)


def test_nothing_to_score() -> None:
    """A class without any object would get a number."""
    assert interval(np.array([np.nan, np.nan])) == {"value": None, "low": None, "high": None}
    assert interval(np.array([1.0, np.nan])) == {"value": 1.0, "low": None, "high": None}


def test_paired_interval_is_of_the_same_resamples(tmp_path: Path) -> None:
    """Two runs that differ on few images would seem to be within each other's error."""
    right = np.arange(200) % 4 > 0
    better = right.copy()
    better[:20:4] = True  # five more
    for name, values in (("one", right), ("two", better)):
        save(tmp_path / name / FILE, decisions(values), "digest")
    files = tmp_path / "one" / FILE, tmp_path / "two" / FILE
    found = paired(*files)
    assert found["difference"] == pytest.approx(2.5) and 0 < found["low"] < 2.5 < found["high"] < 6
    # five of 200 images differ: their number in a resample is binomial
    draws = 100 * np.random.default_rng(0).binomial(200, 5 / 200, 20000) / 200
    assert [found["low"], found["high"]] == pytest.approx(
        np.percentile(draws, [2.5, 97.5]).tolist(), abs=0.51
    )
    assert paired(files[0], files[0]) == {
        **dict.fromkeys(("difference", "low", "high"), 0.0),
        "classes": {name: dict.fromkeys(("difference", "low", "high"), 0.0) for name in ("c0", "c1")},
    }
    back = paired(files[1], files[0])
    assert back["difference"] == -found["difference"] and back["low"] == pytest.approx(-found["high"])


def test_files_keep_everything(tmp_path: Path) -> None:
    """What is paired later would not be what was measured."""
    for scores in (toy_detections(), decisions(np.arange(9) > 3)):
        save(tmp_path / FILE, scores, "abc", {"segm_scores": np.zeros(3)})
        loaded, data = load(tmp_path / FILE)
        assert data == "abc" and type(loaded) is type(scores) and loaded.task == scores.task
        assert Bootstrap(loaded, 50).classes() == Bootstrap(scores, 50).classes()
    with np.load(tmp_path / FILE) as arrays:
        assert "segm_scores" in arrays and from_arrays(arrays).task == "classification"


def test_other_images_are_not_paired(tmp_path: Path) -> None:
    """A difference of two runs on different images would be taken for one of the runs."""
    one, two, three = (tmp_path / name / FILE for name in "abc")
    save(one, decisions(np.arange(9) > 3), "x")
    save(two, decisions(np.arange(8) > 3), "x")
    save(three, decisions(np.arange(9) > 3), "y")
    with pytest.raises(UserError, match=r"9 images, the second 8, 8\.jpg is"):
        paired(one, two)
    with pytest.raises(UserError, match="annotations differ"):
        paired(one, three)
    save(two, toy_detections(), "x")
    with pytest.raises(UserError, match="classification, the second detection"):
        paired(one, two)
    two.write_bytes(b"no scores")
    with pytest.raises(UserError, match="mst evaluate RUN"):
        paired(one, two)
