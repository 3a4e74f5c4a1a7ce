"""Reading features out: targets, predictions and the two arms that know nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.quickstart.drawn import CLASSES, Scenes
from examples.quickstart.paired import mean_iou
from examples.quickstart.readouts import (
    FeatureArm,
    class_weights,
    confusions,
    network_features,
    normalised,
    position_alone,
    raw_pixels,
    read_out,
    shares,
    sum_up,
)
from mst_pretrain.method.backbones import build_trunk


def halves(count: int) -> Scenes:
    """Scenes of 16 x 32 pixels: sky (4) above, road (0) below, of random colours."""
    rng = np.random.default_rng(0)
    images = np.empty((count, 16, 32, 3), np.uint8)
    images[:, :8], images[:, 8:] = rng.integers(0, 256, (2, count, 1, 1, 3))
    labels = np.zeros((count, 16, 32), np.uint8)
    labels[:, :8] = 4
    return Scenes(images, labels)


def test_shares_of_a_patch() -> None:
    """Heads would be fitted to other classes than those below the patch."""
    labels = np.zeros((1, 16, 8), np.uint8)
    labels[0, :2] = 9  # a quarter of the upper patch
    found = shares(labels)
    assert found.shape == (1, len(CLASSES), 2, 1)
    assert found[0, 9].flatten().tolist() == [0.25, 0] and found[0, 0].flatten().tolist() == [0.75, 1]


def test_position_alone_is_the_prior() -> None:
    """The trivial arm would be weaker than what a predictor without eyes can do."""
    (found,) = read_out(FeatureArm("prior", position_alone), halves(6), halves(3), counts=(6, 2))
    assert list(found.heads) == [2, 6] and found.confusions[6].shape == (3, 10, 10)
    assert mean_iou(found.confusions[2].sum(0)) == pytest.approx(100)
    head = found.heads[6]
    scores = torch.eye(8) @ head.weight + head.bias  # rows: places, 4 above and 4 below
    assert (scores[:4, 4] > 0.8).all() and (scores[4:, 4] < 0.2).all()


def test_heads_are_of_the_first_scenes_and_of_their_ridge() -> None:
    """The row of 20 labelled scenes would be fitted on others, or the weak ridge's table be the other's."""
    scenes, arm = halves(20), FeatureArm("raw", raw_pixels)
    strong, weak = read_out(arm, scenes, halves(2), (3, 20), ridges=(0.1, 0.001))
    (alone,) = read_out(arm, scenes.first(3), halves(2), (3,), ridges=(0.001,))
    assert torch.equal(weak.heads[3].weight, alone.heads[3].weight)
    assert (weak.confusions[3] == alone.confusions[3]).all()
    assert not torch.allclose(weak.heads[3].weight, weak.heads[20].weight)
    assert torch.equal(strong.heads[20].weight, sum_up(raw_pixels, scenes).solve(0.1).weight)


def test_every_class_has_the_same_weight() -> None:
    """A head that answers "road" everywhere would be the best one, and things that fill few pixels never be found."""
    labels = np.zeros((2, 10, 10), np.uint8)
    labels[0, 0, :5], labels[1, 0, :5] = 9, 5
    found = class_weights(labels)
    assert found[[9, 5, 0]].tolist() == pytest.approx([200 / 5, 200 / 5, 200 / 190])
    assert found[[1, 2, 3]].tolist() == [0, 0, 0]  # classes that do not occur


def test_raw_pixels_are_the_patch() -> None:
    """The arm of raw pixels would lack some of them, and be easier to beat."""
    images = torch.arange(3 * 16 * 24).reshape(1, 3, 16, 24).float()
    found = raw_pixels(images)
    assert found.shape == (1, 192, 2, 3)
    assert found[0, :, 1, 2].sort().values.equal(images[0, :, 8:, 16:].flatten().sort().values)


def test_network_features_are_all_four_blocks() -> None:
    """The read-out would see the last block alone, or tokens in another order than the patches."""
    trunk = build_trunk(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=4, num_heads=2
    ).eval()
    images = normalised(halves(2).images)
    with torch.no_grad():
        found = network_features(trunk)(images)
        last = trunk.forward_features(images)[:, 1:]
    assert found.shape == (2, 128, 2, 4)
    torch.testing.assert_close(found[:, 96:].flatten(2).transpose(1, 2), last)


def test_confusions_count_true_by_predicted() -> None:
    """IoU would take misses for false alarms."""
    found = confusions(np.array([[[0, 0, 3]]], np.uint8), torch.tensor([[[0, 3, 3]]], dtype=torch.uint8))
    assert found.shape == (1, 10, 10) and found.sum() == 3
    assert (found[0, 0, 0], found[0, 0, 3], found[0, 3, 3]) == (1, 1, 1)
