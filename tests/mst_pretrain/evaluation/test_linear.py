"""The linear evaluation: heads against plain SGD loops, splits, order, crops, and a resumed training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import hflip, normalize, resized_crop, to_tensor

from mst_pretrain.data.multicrop import BOX_DRAWS, CropRecipe, random_boxes
from mst_pretrain.data.sources import open_source
from mst_pretrain.evaluation import linear
from mst_pretrain.evaluation.features import block_features, feature_columns
from mst_pretrain.evaluation.heads import HeadBank, bank_optimizer, cosine_factor, train_step
from mst_pretrain.evaluation.labelled import hold_out, low_shot, open_train_val
from mst_pretrain.evaluation.linear import LinearSettings, LinearTraining, RandomCrops, batches_of_epoch
from mst_pretrain.method.backbones import build_trunk
from mst_pretrain.runtime.errors import UserError

COLUMNS = {"last1": (6, 9), "last2": (0, 9), "last1+avgpool": (6, 12)}
RATES = [0.05, 2.0]
VIT: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2)


def random_bank(seed: int = 0) -> HeadBank:
    """Every head its own random weights and biases."""
    bank = HeadBank(COLUMNS, RATES, classes=5)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return bank


def steps(count: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Rows, labels and schedule factor of each step; batches of different sizes."""
    generator = torch.Generator().manual_seed(1)
    for step in range(count):
        size = 7 + step % 3
        rows = torch.randn(size, 12, generator=generator)
        yield rows, torch.randint(5, (size,), generator=generator), cosine_factor(step, count)


def sgd_loop(weight: np.ndarray, bias: np.ndarray, columns: tuple[int, int], rate: float) -> list[np.ndarray]:
    """One classifier by the formulas, float64: softmax, cross entropy, momentum 0.9, cosine to 0."""
    velocity_w, velocity_b = np.zeros_like(weight), np.zeros_like(bias)
    for step, (rows, labels, _) in enumerate(steps(6)):
        grad_w, grad_b = np.zeros_like(weight), np.zeros_like(bias)
        for row, label in zip(rows.double().numpy()[:, slice(*columns)], labels.tolist(), strict=True):
            scores = weight @ row + bias
            probabilities = np.exp(scores) / np.exp(scores).sum()
            for k in range(len(bias)):
                error = (probabilities[k] - (k == label)) / len(labels)
                grad_w[k] += error * row
                grad_b[k] += error
        velocity_w, velocity_b = 0.9 * velocity_w + grad_w, 0.9 * velocity_b + grad_b
        now = rate * (1 + math.cos(math.pi * step / 6)) / 2
        weight, bias = weight - now * velocity_w, bias - now * velocity_b
    return [weight, bias]


def test_heads_are_sgd_loops() -> None:
    """Heads would share rates, columns or gradients, decay, or follow another momentum or schedule."""
    bank = random_bank()
    start = [(bank.weights[h // 2][h % 2].detach().double().numpy().copy(), bank.bias[h]) for h in range(6)]
    expected = [
        sgd_loop(weight, bias.detach().double().numpy().copy(), COLUMNS[bank.names[h][0]], bank.names[h][1])
        for h, (weight, bias) in enumerate(start)
    ]
    optimizer = bank_optimizer(bank)
    for rows, labels, factor in steps(6):
        train_step(bank, optimizer, rows, labels, len(rows), factor)
    assert bank.names[3] == ("last2", 2.0)
    rows, labels, _ = next(steps(1))
    for h, (weight, bias) in enumerate(expected):
        got = bank.weights[h // 2][h % 2].detach().numpy()
        np.testing.assert_allclose(got, weight, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(bank.bias[h].detach().numpy(), bias, rtol=2e-4, atol=2e-4)
        assert np.abs(weight - start[h][0]).max() > 0.01
        scores = rows.double().numpy()[:, slice(*COLUMNS[bank.names[h][0]])] @ weight.T + bias
        assert bank.correct(rows, labels, chunk=3)[h] == (scores.argmax(1) == labels.numpy()).sum()


def test_diverged_head_leaves_the_others_alone() -> None:
    """One learning rate too high would turn every head to NaN, or its NaN would win the sweep."""
    alone, beside = HeadBank({"a": (0, 12)}, [0.1], 5), HeadBank({"a": (0, 12)}, [0.1, 1e38], 5)
    for bank in (alone, beside):
        optimizer = bank_optimizer(bank)
        for rows, labels, factor in steps(6):
            train_step(bank, optimizer, 10 * rows, labels, len(rows), factor)
    assert not beside.weights[0][1].isfinite().all()
    torch.testing.assert_close(beside.weights[0][0], alone.weights[0][0])
    labels = torch.zeros(len(rows), dtype=torch.int64)
    assert beside.correct(rows, labels)[1] == 0


def test_low_shot_is_seeded_and_balanced() -> None:
    """1 % would lose the small classes, follow the common ones, or be other images at every run."""
    labels = torch.tensor([0] * 300 + [1] * 40 + [2] * 3 + [5])[torch.randperm(344)]
    chosen = low_shot(labels, 0.1, seed=3)
    assert labels[chosen].bincount().tolist() == [30, 4, 1, 0, 0, 1]
    assert torch.equal(chosen, chosen.sort().values) and len(chosen.unique()) == len(chosen)
    assert torch.equal(chosen, low_shot(labels, 0.1, seed=3))
    assert not torch.equal(chosen, low_shot(labels, 0.1, seed=4))
    fixed = torch.arange(40) % 2
    of_each = low_shot(fixed, 0.5, seed=0)
    assert not torch.equal(
        of_each[of_each % 2 == 0], of_each[of_each % 2 == 1] - 1
    )  # no pattern shared by classes
    assert (
        low_shot(fixed, 0.1, seed=0).tolist()
        == low_shot(torch.cat([fixed, torch.full((9,), 7)]), 0.1, 0)[:4].tolist()
    )
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="share"):
            low_shot(labels, share, 0)


def test_held_out_images_are_not_trained_on() -> None:
    """The sweep would choose by images it trained on, or lose a class from training."""
    labels = torch.tensor([0] * 30 + [1] * 2 + [2] * 11)
    kept, held = hold_out(labels, 0.1, seed=0)
    assert sorted(kept.tolist() + held.tolist()) == list(range(43))
    assert labels[held].bincount().tolist() == [3, 1, 1] and labels[kept].bincount().tolist() == [27, 1, 10]
    with pytest.raises(ValueError, match="one image"):
        hold_out(torch.tensor([0, 0, 4]), 0.1, seed=0)


def test_every_image_is_in_every_epoch() -> None:
    """The last incomplete batch would be dropped, or epochs would repeat one order."""
    epochs = [torch.cat(batches_of_epoch(23, 5, seed=1, epoch=epoch)) for epoch in (0, 1)]
    assert [len(batch) for batch in batches_of_epoch(23, 5, 1, 0)] == [5, 5, 5, 5, 3]
    assert all(sorted(order.tolist()) == list(range(23)) for order in epochs)
    assert not torch.equal(*epochs)


def test_crops_are_torchvisions_from_seed_epoch_and_index(images: Path) -> None:
    """Crops would depend on workers or ranks, repeat in every epoch, never flip, or not be normalised."""
    source = open_source(images)
    crops = RandomCrops(source, 32, seed=1)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    with Image.open(source.paths[3]) as opened:
        image = opened.convert("RGB")
    flips = 0
    for epoch in range(12):
        rng = np.random.default_rng([1, epoch, 3])
        recipe = CropRecipe(size=32, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
        draws = rng.random((1, BOX_DRAWS))
        left, top, width, height = random_boxes(image.width, image.height, (recipe,), draws)[0].tolist()
        expected = resized_crop(image, top, left, height, width, [32, 32], InterpolationMode.BILINEAR)
        if rng.random() < 0.5:
            flips += 1
            expected = hflip(expected)
        pixels, index = crops[epoch, 3]
        assert index == 3
        torch.testing.assert_close(pixels, normalize(to_tensor(expected), mean, std))
    assert 0 < flips < 12 and not torch.equal(crops[0, 3][0], crops[1, 3][0])
    assert not torch.equal(crops[0, 3][0], RandomCrops(source, 32, seed=2)[0, 3][0])


def training(
    images: Path, state: Path | None, augment: bool, seed: int = 0, **identity: Any
) -> LinearTraining:
    """Three classes, 17 images of which 13 train, a toy ViT."""
    torch.manual_seed(0)
    trunk = build_trunk("vit_tiny_patch16_224", **VIT).eval()
    settings = LinearSettings(
        feature_columns(trunk, (1, 2)), [0.1, 10.0], epochs=3, batch=4, augment=augment, seed=seed, resize=40, crop=32,
        forward_batch=3, workers=0, blocks=2,
    )  # fmt: skip
    source = open_source(images)
    indices, labels = torch.arange(2, 15), torch.arange(17) % 3
    return LinearTraining(trunk, source, indices, labels, 3, settings, torch.device("cpu"), state, identity)


@pytest.mark.parametrize("augment", [True, False])
def test_training_reads_the_right_rows(images: Path, monkeypatch: pytest.MonkeyPatch, augment: bool) -> None:
    """Labels would belong to other images, features to other blocks, or the rate not scale with the batch."""
    seen: list[tuple[Tensor, Tensor, int, float]] = []
    monkeypatch.setattr(linear, "train_step", lambda bank, opt, *rest: seen.append(rest))
    run = training(images, None, augment)
    run.settings.step_each_epoch = augment  # DINO's cosine moves once per epoch
    run.run()
    assert run.bank.rates.tolist() == pytest.approx([0.1 * 4 / 256, 10 * 4 / 256] * 4)
    expected_factors = [
        cosine_factor(step // 4, 3) if augment else cosine_factor(step, 12) for step in range(12)
    ]
    assert [factor for *_, factor in seen] == expected_factors
    crops = RandomCrops(run.source, 32, 0)
    for step, (rows, labels, size, _) in enumerate(seen):
        batch = run.indices[batches_of_epoch(13, 4, 0, step // 4)[step % 4]]
        assert labels.tolist() == (batch % 3).tolist() and size == len(batch)
        if augment:
            pixels = torch.stack([crops[step // 4, int(index)][0] for index in batch])
            with torch.no_grad():
                expected = block_features(run.trunk, pixels, 2, avgpool=True)
            torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
        else:
            assert run.cached is not None
            torch.testing.assert_close(rows, run.cached[batch - 2])


@pytest.mark.parametrize("augment", [True, False])
def test_interrupted_training_continues(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: bool
) -> None:
    """A hundred epochs would be lost with the machine, or momentum, order or schedule start anew."""
    whole = training(images, None, augment).run()
    state, calls = tmp_path / "out.json.state", 0

    def stops(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 6:  # inside the second epoch
            raise KeyboardInterrupt
        return train_step(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(linear, "train_step", stops)
        with pytest.raises(KeyboardInterrupt):
            training(images, state, augment, a=1).run()
    resumed = training(images, state, augment, seed=0, a=1)
    resumed.resume()
    assert resumed.done == 1
    for got, expected in zip(resumed.run().parameters(), whole.parameters(), strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(UserError, match="other arguments"):
        training(images, state, augment, a=2).resume()


def test_labels_are_the_training_sets(tmp_path: Path) -> None:
    """val's second folder would be class 1 although the training set calls it class 2; unknown ones would pass."""
    for split, names in (("train", "abc"), ("val", "ac")):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.png")
    train, val = open_train_val(str(tmp_path / "train"), str(tmp_path / "val"))
    assert train.labels.tolist() == [0, 1, 2] and val.labels.tolist() == [0, 2]
    with pytest.raises(UserError, match=r"train has classes that .*val lacks: b\."):
        open_train_val(str(tmp_path / "val"), str(tmp_path / "train"))
