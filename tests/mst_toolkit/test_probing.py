"""Probes of a small random backbone: their numbers again from the arrays, with interval and baseline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score

from mst_pretrain.evaluation.labelled import majority_accuracy
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.evaluating import METRICS
from mst_toolkit.image_scores import FILE
from mst_toolkit.intervals import load
from mst_toolkit.probing import _train_and_val, probe

SMALL = ["--model", "vit_tiny_patch16_224", "--resize", "32", "--crop", "32", "--workers", "0"]
SMALL += ["--model-args", json.dumps({"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32})]


def photos(root: Path, counts: dict[str, int]) -> Path:
    """A folder per class, one colour each with noise."""
    generator = np.random.default_rng(0)
    for place, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 120, (32, 32, 3)).astype(np.uint8)
            pixels[..., place] += 120
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_probe_of_class_folders(kind: str, tmp_path: Path) -> None:
    """A probe's accuracy, interval or majority would not be that of its decisions, or be written beside the photos."""
    photos(tmp_path / "data", {"red": 15, "green": 10, "blue": 5})
    more = ["-k", "3"] if kind == "knn" else ["--augment", "none", "--epochs", "2"]
    result = probe(kind, None, tmp_path / "data", tmp_path / "out", options=[*SMALL, *more])
    assert json.loads((tmp_path / "out" / METRICS).read_text()) == result
    scores, data = load(tmp_path / "out" / FILE)
    assert data == result["data"] and result["images"] == 6 == len(scores.images)
    assert np.bincount(scores.truth).tolist() == [1, 2, 3]  # blue, green, red: a fifth of each
    assert result["main"]["value"] == pytest.approx(100 * accuracy_score(scores.truth, scores.predicted))
    tool = result["scores"]["knn_3" if kind == "knn" else "linear"]
    assert result["main"]["value"] == pytest.approx(tool, abs=1e-3)
    assert result["main"]["baseline"] == pytest.approx(50) and result["main"]["low"] <= result["main"]["high"]
    assert [row["baseline"] for row in result["classes"]] == [0, 0, 100]
    assert set(result["baseline"]["scores"]) == set(result["scores"])  # a row of the report each
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["blue", "green", "red"]


def test_split_is_seeded_and_by_class(tmp_path: Path) -> None:
    """Two runs would be probed on different images, or a class have no validation image."""
    root = photos(tmp_path / "data", {"red": 9, "green": 2})
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train, val = _train_and_val(root, tmp_path / name, seed)
        kept, held = ({p.relative_to(f) for p in f.rglob("*.png")} for f in (train, val))
        assert not kept & held and len(kept | held) == 11 and len(list((val / "green").iterdir())) == 1
        found.append(held)
    assert found[0] == found[1] != found[2]
    (root / "val").mkdir()
    (root / "train").mkdir()
    assert _train_and_val(root, tmp_path / "d", 0) == (root / "train", root / "val")


def test_majority_by_hand() -> None:
    """The bar of k-NN and linear accuracy would be that of the validation set's own majority."""
    train, val = torch.tensor([0, 0, 1]), torch.tensor([1, 1, 1, 0])
    assert majority_accuracy(train, val) == 25


def test_what_cannot_be_probed(tmp_path: Path) -> None:
    """Results would be written among the photos, or a wrong word be met by a traceback."""
    photos(tmp_path / "data", {"red": 1})
    with pytest.raises(UserError, match="knn, linear, segmentation"):
        probe("nearest", None, tmp_path / "data", tmp_path / "out")
    with pytest.raises(UserError, match="inside the data"):
        probe("knn", None, tmp_path / "data", tmp_path / "data/out")
    with pytest.raises(UserError, match="DATA/CLASS/IMAGE"):
        probe("knn", None, tmp_path / "data", tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        probe("knn", None, tmp_path / "nowhere", tmp_path / "out")
