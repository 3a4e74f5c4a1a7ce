"""Example arrays of ``per_image.npz``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.mst_toolkit.reporting.example_runs import CLASSES


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write ``per_image.npz``."""
    np.savez_compressed(path, **{name: np.asarray(value) for name, value in arrays.items()})


def detection_arrays(names: Sequence[str], right: Sequence[int], wrong: Sequence[int]) -> dict[str, Any]:
    """Arrays of images with two objects of the first class each, and this many right and wrong detections."""
    image = [place for place, counts in enumerate(zip(right, wrong, strict=True)) for _ in range(sum(counts))]
    hit = [bit for counts in zip(right, wrong, strict=True) for bit in [1] * counts[0] + [0] * counts[1]]
    size = len(image)
    return {
        "task": "detection",
        "data": "ef" * 32,
        "images": np.array(names),
        "classes": np.array(CLASSES),
        "scores": np.full(size, 0.9),
        "image": np.array(image, np.int32),
        "label": np.zeros(size, np.int32),
        "hit": np.array(hit, np.uint16),
        "ignored": np.zeros(size, np.uint16),
        "objects": np.array([[2, 0]] * len(names), np.int32),
    }


def label_arrays(names: Sequence[str], matrices: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Arrays of confusion matrices [N, C, C], rows are the truth."""
    image, truth, predicted = np.nonzero(matrices)
    return {
        "task": "segmentation",
        "data": "ef" * 32,
        "images": np.array(names),
        "classes": np.array(classes),
        "image": image.astype(np.int32),
        "truth": truth.astype(np.int32),
        "predicted": predicted.astype(np.int32),
        "count": matrices[image, truth, predicted].astype(np.int64),
    }
