"""k-NN against a brute-force loop, and the features it reads."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from mst_pretrain.data.sources import open_source
from mst_pretrain.evaluation import knn
from mst_pretrain.evaluation.features import evaluation_transform, extract_features
from mst_pretrain.evaluation.knn import accuracy, knn_predict, nearest
from mst_pretrain.method.backbones import build_trunk


def brute_force(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, k: int, temperature: float
) -> float:
    """Every distance, every vote."""
    correct = 0
    for feature, label in zip(test, truth, strict=True):
        scored = []
        for other, other_label in zip(train, labels, strict=True):
            cosine = float(feature @ other) / math.sqrt(float(feature @ feature) * float(other @ other))
            scored.append((-cosine, int(other_label)))
        votes: dict[int, float] = {}
        for negative, other_label in sorted(scored)[:k]:
            votes[other_label] = votes.get(other_label, 0.0) + math.exp(-negative / temperature)
        correct += max(sorted(votes), key=lambda name: votes[name]) == label
    return 100 * correct / len(test)


@pytest.mark.parametrize(("classes", "count", "tests"), [(3, 40, 1), (37, 120, 50), (2, 5, 7), (1200, 60, 9)])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_accuracy_is_the_brute_forces(classes: int, count: int, tests: int, temperature: float) -> None:
    """Votes, similarity, or the numbers of classes and images would be DINO's fixed ones (1000 and 100)."""
    rng = np.random.default_rng(classes)
    centres = rng.normal(size=(classes, 8))
    labels, truth = rng.integers(classes, size=count), rng.integers(classes, size=tests)
    train = (centres[labels] + 1.2 * rng.normal(size=(count, 8))) * rng.uniform(0.1, 9, (count, 1))
    test = (centres[truth] + 1.2 * rng.normal(size=(tests, 8))) * rng.uniform(0.1, 9, (tests, 1))
    ks = [1, 4, 5, min(20, count), count]
    train_tensor, test_tensor = torch.tensor(train).float(), torch.tensor(test).float()
    got = knn_predict(train_tensor, torch.tensor(labels), test_tensor, ks, temperature, test_chunk=4)
    for k in ks:
        assert accuracy(got[k], torch.tensor(truth)) == pytest.approx(
            brute_force(train, labels, test, truth, k, temperature)
        ), k


def test_impossible_k_is_refused() -> None:
    """k above the number of training images would be cut silently, or crash."""
    features, labels = torch.randn(5, 3), torch.zeros(5, dtype=torch.int64)
    for ks in ([6], [0, 2]):
        with pytest.raises(ValueError, match="5 training images"):
            knn_predict(features, labels, features, ks)
    with pytest.raises(ValueError, match="no test image"):
        knn_predict(features, labels, features[:0], [1])


@pytest.mark.parametrize("chunks", [(1024, 16384), (7, 130), (1, 11)])
def test_every_prediction_is_scikit_learns(chunks: tuple[int, int]) -> None:
    """Neighbours would be lost between chunks, or the accuracy would be right by compensating errors."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(23, 12))
    labels, truth = rng.integers(23, size=600), rng.integers(23, size=90)
    train = (centres[labels] + 1.5 * rng.normal(size=(600, 12))) * rng.uniform(0.1, 9, (600, 1))
    test = (centres[truth] + 1.5 * rng.normal(size=(90, 12))) * rng.uniform(0.1, 9, (90, 1))
    train[300:320], labels[300:320] = train[:20] * 2, labels[:20]  # the same photograph twice
    got = knn_predict(
        torch.tensor(train).float(),
        torch.tensor(labels),
        torch.tensor(test).float(),
        (10, 20, 100),
        0.07,
        *chunks,
    )
    for k, predicted in got.items():
        reference = KNeighborsClassifier(
            k, weights=lambda distance: np.exp((1 - distance) / 0.07), metric="cosine", algorithm="brute"
        ).fit(train, labels)
        expected = reference.predict(test)
        assert np.array_equal(predicted.numpy(), expected), k
        assert 0.2 < (expected == truth).mean() < 0.98


def test_ties_go_to_the_earlier_image_and_the_lower_class() -> None:
    """Among equally near images of several classes the answer would depend on chunks, device or luck."""
    train = torch.zeros(40, 4)
    train[:, 0] = 1.0  # all equally near, and powers of two of one another: exactly equal cosines
    train *= 2.0 ** (torch.arange(40) % 5).unsqueeze(1)
    labels = torch.tensor([7, 3, 3, 7] + [1] * 36)
    for train_chunk in (1, 3, 40):
        got = knn_predict(train, labels, train[:2], (1, 2, 3, 4, 40), train_chunk=train_chunk)
        assert {k: value.tolist() for k, value in got.items()} == {
            1: [7, 7],
            2: [3, 3],
            3: [3, 3],
            4: [3, 3],
            40: [1, 1],
        }


def test_ties_at_the_last_neighbour_go_to_the_earlier_image() -> None:
    """``topk`` picks any of many equals: its own choice would be the neighbours."""
    for count, place in ((40, 30), (5000, 300)):
        train = torch.zeros(count, 4)
        train[:, 0] = 1.0  # equally far from the query ...
        train[place] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # ... except this one
        similarity, index = nearest(train, train[[place, 0]], 4, 2, 4096)
        assert index.tolist() == [[place, 0, 1, 2], [0, 1, 2, 3]]
        assert similarity.tolist() == [[1.0, 0.0, 0.0, 0.0], [1.0] * 4]


@pytest.mark.parametrize(("columns", "count"), [(64 * 30 + 7, 20), (64 * 21, 20), (64 * 5 + 1, 1), (100, 20)])
@pytest.mark.parametrize("levels", [4, 50, 10**6])
def test_the_largest_are_found_by_blocks(columns: int, count: int, levels: int) -> None:
    """A neighbour in a block that was left out, or the later one of equals, would be missed."""
    generator = torch.Generator().manual_seed(columns + levels)
    rows = torch.randint(levels, (40, columns), generator=generator).float()
    values, index = knn._top(rows, count)
    expected, order = rows.sort(dim=1, descending=True, stable=True)
    assert torch.equal(values, expected[:, :count]) and torch.equal(index, order[:, :count])


def test_low_temperature_does_not_overflow() -> None:
    """exp(similarity / 0.005) is infinite in float32: every class would have the same vote."""
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    got = knn_predict(features, torch.tensor([2, 1, 0]), features[:1], (3,), temperature=0.005)
    assert got[3].tolist() == [2]


def test_evaluation_sees_the_centre_of_the_image() -> None:
    """Features would come from another crop, resolution or normalisation than DINO's protocol."""
    rows, columns = np.mgrid[0:60, 0:90]
    image = Image.fromarray(np.stack([columns, rows, np.full_like(rows, 51)], 2).astype(np.uint8))
    pixels = evaluation_transform(resize=60, crop=40)(image)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    values = pixels * std.view(3, 1, 1) + mean.view(3, 1, 1)
    assert pixels.shape == (3, 40, 40)
    torch.testing.assert_close(values[0, 0] * 255, torch.arange(25.0, 65.0))
    torch.testing.assert_close(values[1, :, 0] * 255, torch.arange(10.0, 50.0))
    torch.testing.assert_close(values[2], torch.full((40, 40), 0.2))
    assert evaluation_transform()(image).shape == (3, 224, 224)


def test_features_stand_in_the_order_of_the_files(images: Path) -> None:
    """Features would belong to other labels, or depend on batches and workers."""
    torch.manual_seed(0)
    trunk = build_trunk("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    paths = sorted(images.iterdir())
    got = extract_features(trunk, open_source(images), 40, 32, batch_size=5, workers=0)
    transform = evaluation_transform(40, 32)
    with torch.no_grad():
        alone = [trunk.forward_features(transform(Image.open(p).convert("RGB"))[None])[0, 0] for p in paths]
    torch.testing.assert_close(got, torch.stack(alone), rtol=1e-4, atol=1e-5)
    assert got.shape == (17, 16) and not trunk.training
    rounded = extract_features(trunk, open_source(images), 40, 32, workers=0, precision="bfloat16")
    assert rounded.dtype == torch.float32 and 0 < (rounded - got).abs().max() < 0.1


def test_neighbours_that_float32_cannot_tell_apart() -> None:
    """The nearest image, and with it a prediction, would depend on the order of float32's sums."""
    train = torch.tensor([[1.0, 1.0e-4], [1.0, 0.9e-4], [1.0, -0.9e-4]])
    similarity, index = nearest(train, torch.tensor([[1.0, 0.0]]), 2, 1, 2)
    assert index.tolist() == [[1, 2]]
    expected = [1 / math.sqrt(1 + float(train[1, 1]) ** 2)] * 2
    assert similarity[0].tolist() == pytest.approx(expected, abs=1e-15)
    assert knn_predict(train, torch.tensor([3, 5, 4]), torch.tensor([[1.0, 0.0]]), [1])[1].tolist() == [5]
