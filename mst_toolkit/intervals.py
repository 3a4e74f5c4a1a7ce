"""95 % intervals over images by the bootstrap: of one run's scores, and of the difference between two runs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .image_scores import ImageScores, from_arrays, nan_mean

RESAMPLES = 1000
SEED = 0
LEVEL = 95.0  # per cent


def resample_counts(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each image is drawn when as many as there are are drawn with replacement.

    Args:
        images: N, at least 1.
        resamples: R.
        seed: Equal seeds draw equal images.

    Returns:
        uint16 [R, N], each row sums to N.
    """
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(0, images, images) for _ in range(resamples))
    return np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.uint16)


class Bootstrap:
    """Scores of one evaluation in its resamples, in per cent.

    Args:
        scores: Of every image.
        resamples: How many.
        seed: Of the choice of images; equal seeds give equal intervals.
    """

    def __init__(self, scores: ImageScores, resamples: int = RESAMPLES, seed: int = SEED) -> None:
        self.scores, self.resamples, self.seed = scores, resamples, seed

    @cached_property
    def counts(self) -> np.ndarray:
        """The set itself in the first row, then the resamples."""
        whole = np.ones((1, len(self.scores.images)), np.uint16)
        return np.concatenate([whole, resample_counts(whole.shape[1], self.resamples, self.seed)])

    @cached_property
    def by_class(self) -> np.ndarray:
        """Main metric of every class in per cent, float64 [1 + R, C]; a class without objects is NaN."""
        metric = self.scores.metrics[0] if self.scores.task != "classification" else "Acc"
        return 100 * self.scores.per_class(self.counts, metric)

    @cached_property
    def by_resample(self) -> np.ndarray:
        """Main score in per cent, float64 [1 + R]; the first is that of the whole set."""
        if self.scores.task == "classification":
            return 100 * self.scores.mean(self.counts, "aAcc")
        return nan_mean(self.by_class)

    def main(self) -> dict[str, float | None]:
        """``value``, ``low`` and ``high`` of the main score."""
        return interval(self.by_resample)

    def classes(self) -> list[dict[str, float | None]]:
        """The same for every class; None where it has no object, resamples without one left out."""
        return [interval(column) for column in self.by_class.T]


def interval(values: np.ndarray) -> dict[str, float | None]:
    """Percentile interval of resamples.

    Args:
        values: float64 [1 + R], that of the whole set first; NaN where there is none.

    Returns:
        ``value``, ``low``, ``high``; None where the whole set has no value.
    """
    known = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(known):
        return {"value": None if np.isnan(values[0]) else float(values[0]), "low": None, "high": None}
    low, high = np.percentile(known, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def load(path: str | Path) -> tuple[ImageScores, str]:
    """The scores of a ``per_image.npz``, and the digest of its data.

    Raises:
        UserError: The file is missing or is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return from_arrays(arrays), str(arrays["data"])
    except (OSError, ValueError, KeyError) as error:
        from mst_pretrain.runtime.errors import UserError

        raise UserError(
            f"{path} cannot be read as the scores of every image ({error}). Write it again: mst evaluate RUN"
        ) from error


def paired(
    first: str | Path, second: str | Path, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Any]:
    """Difference of the main scores, second minus first, with its 95 % interval over the same resamples.

    Args:
        first: ``per_image.npz`` of one run.
        second: Of another run on the same images.
        resamples: How many.
        seed: Of the choice of images.

    Returns:
        ``difference``, ``low``, ``high`` in per cent, and ``classes`` with the same three by name.

    Raises:
        UserError: A file cannot be read, or the two are not of the same images, classes and task.
    """
    (one, data), (other, other_data) = load(first), load(second)
    _check_pair(first, one, data, second, other, other_data)
    before, after = Bootstrap(one, resamples, seed), Bootstrap(other, resamples, seed)
    by_class = after.by_class - before.by_class
    names = map(str, one.classes)
    return {
        **_difference(after.by_resample - before.by_resample),
        "classes": {name: _difference(column) for name, column in zip(names, by_class.T, strict=True)},
    }


def _difference(values: np.ndarray) -> dict[str, float | None]:
    found = interval(values)
    return {"difference": found["value"], "low": found["low"], "high": found["high"]}


def _check_pair(
    first: str | Path, one: ImageScores, data: str, second: str | Path, other: ImageScores, other_data: str
) -> None:
    what = None
    if one.task != other.task:
        what = f"the first is {one.task}, the second {other.task}"
    elif one.classes.tolist() != other.classes.tolist():
        what = f"the first has {len(one.classes)} classes, the second {len(other.classes)}, or their names differ"
    elif one.images.tolist() != other.images.tolist():
        strange = sorted(set(one.images.tolist()) ^ set(other.images.tolist()))
        where = f", {strange[0]} is in one of them alone" if strange else " in another order"
        what = f"the first has {len(one.images)} images, the second {len(other.images)}{where}"
    elif data != other_data:
        what = "their annotations differ"
    if what is not None:
        from mst_pretrain.runtime.errors import UserError

        raise UserError(
            f"{first} and {second} cannot be compared image by image: {what}.\n"
            "Evaluate both runs on the same data: mst evaluate RUN"
        )
