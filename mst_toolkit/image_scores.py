"""What an evaluation keeps of every image: enough to score any choice of the images again, without the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

THRESHOLDS = 10  # IoU 0.50, 0.55, ..., 0.95
AP75 = 5  # place of 0.75 among them
RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads the precision
CELLS = 4_000_000  # numbers in memory at a time
FILE = "per_image.npz"


@dataclass(frozen=True)
class DetectionImages:
    """Matched detections of N images and C classes, E detections in all; numpy arrays alone.

    Attributes:
        images: File names, str [N].
        classes: Names, str [C].
        scores: float64 [E].
        image: Place of each detection's image; int32 [E], rising.
        label: Place of its class; int32 [E].
        hit: Bit t is set where it finds an object at the t-th IoU threshold; uint16 [E].
        ignored: Bit t is set where it does not count there; uint16 [E].
        objects: Objects to be found, without crowds; int32 [N, C].
    """

    task: ClassVar[str] = "detection"
    metrics: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75")

    images: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    image: np.ndarray
    label: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray

    def per_class(self, counts: np.ndarray, metric: str = "AP") -> np.ndarray:
        """Score of every class in resamples of the images, equal to COCO's evaluation of each.

        Entries of one image that is drawn several times stand together, as if its copies had adjacent ids.

        Args:
            counts: How often each image is drawn, int [R, N].
            metric: ``AP``, ``AP50`` or ``AP75``.

        Returns:
            float64 [R, C] in [0, 1]; NaN where a resample has no object of a class.
        """
        which = {"AP": range(THRESHOLDS), "AP50": (0,), "AP75": (AP75,)}[metric]
        return np.stack([self._one(counts, index, which) for index in range(len(self.classes))], 1)

    def mean(self, counts: np.ndarray, metric: str = "AP") -> np.ndarray:
        """Mean over the classes that occur, float64 [R]; NaN where none does."""
        return nan_mean(self.per_class(counts, metric))

    def _one(self, counts: np.ndarray, index: int, which: Sequence[int]) -> np.ndarray:
        """AP [R] of one class, the mean over some thresholds."""
        mine = np.flatnonzero(self.label == index)
        mine = mine[np.argsort(-self.scores[mine], kind="stable")]
        drawn, hit, ignored = self.image[mine], self.hit[mine], self.ignored[mine]
        found = np.full(len(counts), np.nan)
        step = max(1, CELLS // max(1, len(mine), int(self.objects[:, index].sum())))
        for start in range(0, len(counts), step):
            part = counts[start : start + step].astype(np.int64)
            objects = part @ self.objects[:, index].astype(np.int64)
            read = _recalls_reached(objects)
            weights = part[:, drawn]
            before = weights.cumsum(1)
            values = np.zeros(len(part))
            for threshold in which:
                bit = np.uint16(1 << threshold)
                hits = np.flatnonzero((hit & bit > 0) & (ignored & bit == 0))
                left_out = np.flatnonzero(ignored & bit)
                values += _average_precision(weights, before, hits, left_out, read)
            found[start : start + step] = np.where(objects > 0, values / len(which), np.nan)
        return found


def _recalls_reached(objects: np.ndarray) -> np.ndarray:
    """How many of the 101 recalls are reached by m of n objects: int16 [R, max n + 1], for n [R] and m = 0, 1, ..."""
    sizes, places = np.unique(objects, return_inverse=True)
    table = np.zeros((len(sizes), int(sizes.max()) + 1), np.int16)
    for row, size in zip(table, sizes, strict=True):
        row[: size + 1] = np.searchsorted(RECALLS, np.arange(size + 1) / max(size, 1), side="right")
    return table[places]


def _average_precision(
    weights: np.ndarray, before: np.ndarray, hits: np.ndarray, left_out: np.ndarray, read: np.ndarray
) -> np.ndarray:
    """Mean precision [R] over the 101 recalls.

    Args:
        weights: How often each detection occurs, by falling score, int64 [R, D].
        before: Their sums up to each, [R, D].
        hits: Rising places of the detections that find an object.
        left_out: Rising places of those that do not count.
        read: As :func:`_recalls_reached`.
    """
    if not len(hits):
        return np.zeros(len(weights))
    right = weights[:, hits].cumsum(1)
    counted = before[:, hits]
    if len(left_out):
        sums = np.concatenate([np.zeros((len(weights), 1), np.int64), weights[:, left_out].cumsum(1)], 1)
        counted = counted - sums[:, np.searchsorted(left_out, hits)]
    precision = right / (counted + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[
        :, ::-1
    ]  # the best at this recall or a higher one
    reached = np.take_along_axis(read, right, 1)
    new = np.diff(reached, axis=1, prepend=np.zeros((len(reached), 1), np.int16))
    return np.asarray((precision * new).sum(1) / len(RECALLS))


@dataclass(frozen=True)
class LabelImages:
    """Confusions of N images and C classes: pixels of label maps, or one decision per image of a classifier.

    Attributes:
        images: File names, str [N].
        classes: Names, str [C].
        image: Place of the image; int32 [E].
        truth: True class; int32 [E].
        predicted: Predicted class; int32 [E].
        count: Pixels, or images, with this pair; int64 [E].
        task: ``segmentation`` or ``classification``.
    """

    images: np.ndarray
    classes: np.ndarray
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    count: np.ndarray
    task: str = "segmentation"

    @classmethod
    def of_matrices(cls, images: np.ndarray, classes: np.ndarray, matrices: np.ndarray) -> LabelImages:
        """From confusion matrices [N, C, C], rows are the truth."""
        image, truth, predicted = (places.astype(np.int32) for places in np.nonzero(matrices))
        count = matrices[image, truth, predicted].astype(np.int64)
        return cls(images, classes, image, truth, predicted, count)

    @classmethod
    def of_decisions(
        cls, images: np.ndarray, classes: np.ndarray, truth: np.ndarray, predicted: np.ndarray
    ) -> LabelImages:
        """From one true and one predicted class per image, int [N]."""
        true, found = truth.astype(np.int32), predicted.astype(np.int32)
        places, ones = np.arange(len(images), dtype=np.int32), np.ones(len(images), np.int64)
        return cls(images, classes, places, true, found, ones, "classification")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, the main one first."""
        return ("IoU", "Acc", "aAcc") if self.task == "segmentation" else ("aAcc", "Acc")

    def sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Right ones, true ones and predicted ones by image and class, each int64 [N, C]."""
        shape = len(self.images), len(self.classes)
        found = []
        for labels, chosen in (
            (self.truth, self.truth == self.predicted),
            (self.truth, slice(None)),
            (self.predicted, slice(None)),
        ):
            total = np.zeros(shape, np.int64)
            np.add.at(total, (self.image[chosen], labels[chosen]), self.count[chosen])
            found.append(total)
        return found[0], found[1], found[2]

    def per_class(self, counts: np.ndarray, metric: str = "IoU") -> np.ndarray:
        """Score of every class in resamples of the images.

        Args:
            counts: How often each image is drawn, int [R, N].
            metric: ``IoU``, or ``Acc``, the share of the true class that is right.

        Returns:
            float64 [R, C] in [0, 1]; NaN where a class does not occur.
        """
        right, true, predicted = (counts.astype(np.int64) @ total for total in self.sums())
        whole = true + predicted - right if metric == "IoU" else true
        return np.divide(right, whole, out=np.full(whole.shape, np.nan), where=whole > 0)

    def mean(self, counts: np.ndarray, metric: str = "IoU") -> np.ndarray:
        """Mean over the classes that occur, or with ``aAcc`` the share of everything that is right; float64 [R]."""
        if metric != "aAcc":
            return nan_mean(self.per_class(counts, metric))
        right, true, _ = (counts.astype(np.int64) @ total.sum(1) for total in self.sums())
        return np.divide(right, true, out=np.full(len(counts), np.nan), where=true > 0)


ImageScores = DetectionImages | LabelImages


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean of [R, C] over those of C that are numbers, [R]; NaN where none is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(1)
    return np.divide(total, known.sum(1), out=np.full(len(values), np.nan), where=known.any(1))


def as_arrays(scores: ImageScores) -> dict[str, np.ndarray]:
    """What :func:`from_arrays` reads, for one ``.npz``."""
    return {name: np.asarray(value) for name, value in asdict(scores).items()} | {
        "task": np.asarray(scores.task)
    }


def from_arrays(arrays: Any) -> ImageScores:
    """The scores that :func:`as_arrays` gave; further arrays are left alone."""
    task = str(arrays["task"])
    kind = DetectionImages if task == DetectionImages.task else LabelImages
    own = {field.name: arrays[field.name] for field in fields(kind)}
    return kind(**(own | ({"task": task} if "task" in own else {})))


def save(path: Path, scores: ImageScores, data: str, further: dict[str, np.ndarray] | None = None) -> None:
    """Write ``per_image.npz``, whole or not at all.

    Args:
        path: The file.
        scores: Of the main score.
        data: Digest of the data, by which two runs are known to be of the same images.
        further: More arrays, which :func:`from_arrays` does not read.
    """
    from mst_pretrain.runtime.atomic import replacing

    with replacing(path) as part, open(part, "wb") as stream:
        arrays: dict[str, Any] = {"data": np.asarray(data), **as_arrays(scores), **(further or {})}
        np.savez_compressed(stream, **arrays)
