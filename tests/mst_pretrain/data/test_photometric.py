"""Colours on the device: every sample as torchvision would colour it alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from mst_pretrain.data import photometric
from mst_pretrain.data.multicrop import PARAMETERS
from mst_pretrain.data.photometric import MultiCropPreprocessor, augment, gaussian_blur

JITTER = ("brightness", "contrast", "saturation", "hue")
TORCHVISION: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
}
IDENTITY = dict(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, order=0.0)
IDENTITY |= dict(jitter=0.0, grey=0.0, sigma=0.0, solarize=0.0)


def pictures(count: int, size: int = 24, seed: int = 0) -> Tensor:
    """Images with grey pixels, black and white among the colours."""
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    images[:, :, :2] = images[:, :1, :2]
    images[:, :, 2], images[:, :, 3] = 0.0, 1.0
    return images


def row(**values: float) -> list[float]:
    assert set(values) <= set(PARAMETERS)
    return [float({**IDENTITY, **values}[name]) for name in PARAMETERS]


def alone(image: Tensor, parameters: dict[str, float]) -> Tensor:
    """torchvision's functions on one image [3, H, W], in DINO's order."""
    values = {**IDENTITY, **parameters}
    if values["jitter"]:
        for operation in list(itertools.permutations(range(4)))[int(values["order"])]:
            image = TORCHVISION[JITTER[operation]](image, values[JITTER[operation]])
    if values["grey"]:
        image = tv.rgb_to_grayscale(image, 3)
    if values["sigma"]:
        size = 2 * max(1, int(3 * values["sigma"] + 0.5)) + 1
        image = tv.gaussian_blur(image, [size, size], [values["sigma"], values["sigma"]])
    if values["solarize"]:
        image = tv.solarize(image, 128 / 255)
    return image


@pytest.mark.parametrize("name", JITTER)
def test_each_change_is_torchvisions(name: str) -> None:
    """A factor would mean another change than in the recipes of the literature."""
    factors = [-0.5, -0.1, 0.0, 0.07, 0.5] if name == "hue" else [0.0, 0.6, 1.0, 1.4, 2.0]
    images = pictures(5)
    got = getattr(photometric, f"adjust_{name}")(images.clone(), torch.tensor(factors).view(-1, 1, 1, 1))
    for image, factor, result in zip(images, factors, got, strict=True):
        torch.testing.assert_close(result, TORCHVISION[name](image, factor), rtol=1e-4, atol=2e-6)


def test_grey_is_torchvisions() -> None:
    """Grey would weigh the colours otherwise."""
    images = pictures(3)
    got = photometric.rgb_to_grey(images)
    torch.testing.assert_close(got, tv.rgb_to_grayscale(images, 1), rtol=1e-5, atol=1e-6)


def test_blur_is_torchvisions_whatever_the_neighbours() -> None:
    """A sample's blur would depend on the batch it is in, so on the number of ranks or micro-batches."""
    sigmas = [0.1, 0.4, 1.0, 2.0, 3.5]
    images = pictures(5)
    got = gaussian_blur(images, torch.tensor(sigmas), max(sigmas))
    for image, sigma, result in zip(images, sigmas, got, strict=True):
        torch.testing.assert_close(result, alone(image, {"sigma": sigma}), rtol=1e-5, atol=1e-6)
        by_itself = gaussian_blur(image[None], torch.tensor([sigma]), sigma)[0]
        torch.testing.assert_close(result, by_itself, rtol=1e-6, atol=1e-6)


def test_blur_of_an_image_smaller_than_its_kernel() -> None:
    """A tiny local crop would crash in the reflection at its border."""
    images = pictures(1, size=5)
    expected = tv.gaussian_blur(images, [9, 9], [2.0, 2.0])
    for blurred in (
        gaussian_blur(images, torch.tensor([2.0]), 2.0),
        augment(images.clone(), torch.tensor([row(sigma=2.0)])),
    ):
        torch.testing.assert_close(blurred, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["CPU", "GPU"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are chosen as on a CPU, or all are computed as on a GPU."""
    if request.param == "GPU":
        monkeypatch.setattr(photometric, "_on_gpu", lambda images: True)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)


def test_orders_of_the_jitter(device: None) -> None:
    """The four changes would run in one order for all samples."""
    changes = dict(jitter=1.0, brightness=1.35, contrast=0.65, saturation=1.2, hue=0.09)
    parameters = [{**changes, "order": float(order)} for order in range(24)]
    images = pictures(24, size=8)
    got = augment(images.clone(), torch.tensor([row(**values) for values in parameters]))
    for image, values, result in zip(images, parameters, got, strict=True):
        torch.testing.assert_close(result, alone(image, values), rtol=1e-4, atol=5e-6)
    same_image = augment(
        images[:1].repeat(24, 1, 1, 1), torch.tensor([row(**values) for values in parameters])
    )
    assert len({tuple(result.flatten().tolist()) for result in same_image}) > 12


def test_every_sample_has_its_own_parameters(device: None) -> None:
    """Samples of a batch would share a change, or a change skipped for one would be applied to another."""
    generator = torch.Generator().manual_seed(1)
    parameters = []
    for index in range(32):
        draw = torch.rand(5, generator=generator).tolist()
        parameters.append(
            dict(
                brightness=0.6 + 0.8 * draw[0],
                contrast=0.6 + 0.8 * draw[1],
                saturation=0.8 + 0.4 * draw[2],
                hue=0.2 * draw[3] - 0.1,
                order=float(index % 24),
                jitter=float(index % 2),
                grey=float(index // 2 % 2),
                sigma=(0.1 + 1.9 * draw[4]) * (index // 4 % 2),
                solarize=float(index // 8 % 2),
            )
        )
    images = pictures(32, size=16)
    got = augment(images.clone(), torch.tensor([row(**values) for values in parameters]))
    for index, (image, values) in enumerate(zip(images, parameters, strict=True)):
        expected = alone(image, values)
        near_threshold = values["solarize"] and ((expected - 128 / 255).abs() < 1e-4).any()
        if not near_threshold:
            torch.testing.assert_close(got[index], expected, rtol=1e-4, atol=1e-5, msg=f"sample {index}")
    assert 0 <= got.min() and got.max() <= 1


def test_solarize_turns_values_from_128_on(device: None) -> None:
    """The threshold would be off by one grey level of PIL's."""
    image = torch.tensor([127.0, 128.0, 0.0, 255.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2) / 255
    got = augment(image.clone(), torch.tensor([row(solarize=1.0)]))
    assert (got[0, 0].flatten() * 255).round().tolist() == [127, 127, 0, 0]


def test_preprocessor_keeps_samples_and_views_together() -> None:
    """Parameters of one view or sample would colour another; values would not be normalised."""
    generator = torch.Generator().manual_seed(2)
    crops = torch.randint(256, (3, 2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    locals_ = torch.randint(256, (3, 4, 3, 4, 4), generator=generator, dtype=torch.uint8)
    factors = torch.rand(3, 6, generator=generator).mul(0.8).add(0.6)
    parameters = [[row(jitter=1.0, brightness=float(f)) for f in sample] for sample in factors]
    data = {
        "global_crops": crops,
        "global_parameters": torch.tensor(parameters)[:, :2],
        "local_crops": locals_,
        "local_parameters": torch.tensor(parameters)[:, 2:],
        "seed": torch.tensor([7, 8, 9]),
    }
    preprocessor = MultiCropPreprocessor()
    views = preprocessor(data, training=True)
    assert set(views) == {"global_views", "local_views", "seeds"} and views["seeds"].tolist() == [7, 8, 9]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for name, given, first in (("global_views", crops, 0), ("local_views", locals_, 2)):
        got = views[name]
        assert got.shape == (given.shape[1], 3, *given.shape[2:]) and got.dtype == torch.float32
        plain = preprocessor(data, training=False)[name]
        for sample in range(3):
            for view in range(given.shape[1]):
                pixels = given[sample, view].float() / 255
                torch.testing.assert_close(plain[view, sample], (pixels - mean) / std)
                bright = (pixels * factors[sample, first + view]).clamp(0, 1)
                torch.testing.assert_close(got[view, sample], (bright - mean) / std, rtol=1e-4, atol=1e-5)


def test_preprocessor_is_exact_under_autocast() -> None:
    """Under --amp the blur would run in half precision, and the first blurred batch end the run."""
    pixels = (pictures(4) * 255).byte().unsqueeze(1)
    parameters = torch.tensor(
        [[row(jitter=1.0, brightness=1.2, sigma=0.3 + 0.4 * i, solarize=1.0)] for i in range(4)]
    )
    crops = {"global_crops": pixels, "global_parameters": parameters}
    local = {"local_crops": pixels[:, :0], "local_parameters": parameters[:, :0]}
    data = {**crops, **local, "seed": torch.arange(4)}
    expected = MultiCropPreprocessor()(data, training=True)["global_views"]
    with torch.autocast("cpu", torch.bfloat16):
        got = MultiCropPreprocessor()(data, training=True)["global_views"]
    assert got.dtype == torch.float32 and torch.equal(got, expected)


def test_preprocessor_without_local_crops() -> None:
    """Two global views alone would crash."""
    data = {
        "global_crops": torch.zeros(2, 2, 3, 8, 8, dtype=torch.uint8),
        "global_parameters": torch.tensor([[row()] * 2] * 2),
        "local_crops": torch.zeros(2, 0, 3, 4, 4, dtype=torch.uint8),
        "local_parameters": torch.zeros(2, 0, len(PARAMETERS)),
        "seed": torch.tensor([1, 2]),
    }
    assert MultiCropPreprocessor()(data, training=True)["local_views"].shape == (0, 2, 3, 4, 4)
