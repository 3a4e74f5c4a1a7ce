"""Attention, mask, restoration and feature colours of any images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mst_pretrain.data.photometric import IMAGENET_MEAN, IMAGENET_STD
from mst_pretrain.runtime.errors import UserError
from mst_toolkit.reporting.pictures import (
    feature_colors,
    load_pretraining,
    nearest_neighbours,
    see_images,
)
from tests.mst_toolkit.reporting.example_runs import pretraining_run, write_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a toy pretraining."""
    return pretraining_run(tmp_path_factory.mktemp("runs") / "photos_vit", 4)


@pytest.fixture(scope="module")
def model(run: Path) -> Any:
    """Its network."""
    return load_pretraining(run)


def test_pictures_are_the_models_own(model: Any) -> None:
    """A picture would show another mask, or another attention, than the network computes."""
    pixels = np.random.default_rng(1).integers(0, 256, (32, 40, 3)).astype(np.uint8)
    (seen,) = see_images(model, [Image.fromarray(pixels)], seed=5)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    batch = ((torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std)[None]
    attention, mask, restored = model.restore(batch, torch.tensor([5]))
    assert mask is not None and restored is not None and seen.hidden is not None and seen.restored is not None
    assert np.array_equal(seen.image, pixels)  # 32 px is the size in training: nothing is resized
    hidden = np.kron(mask[0].numpy(), np.ones((8, 8), bool))
    assert np.array_equal(seen.hidden[~hidden], pixels[~hidden]) and np.all(seen.hidden[hidden] == 128)
    assert seen.hidden_share == hidden.mean() == 0.5
    shown = (restored[0] * std + mean).clamp(0, 1).permute(1, 2, 0).numpy() * 255
    assert np.abs(seen.restored - shown).max() <= 0.51
    bright = seen.attention.astype(int).sum(-1).reshape(4, 8, 5, 8).mean((1, 3))
    order = attention[0].numpy()
    assert np.unravel_index(bright.argmax(), bright.shape) == np.unravel_index(order.argmax(), order.shape)


def test_every_image_has_its_own_draws(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks of a page would be one pattern, or others at every call."""
    monkeypatch.setattr(model, "masking", {**model.masking, "prob": 0.5})
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8))
    one, other = see_images(model, [image, image], seed=3)
    (again,) = see_images(model, [image], seed=4)
    assert other.hidden is not None and again.hidden is not None and one.hidden is not None
    assert np.array_equal(other.hidden, again.hidden) and not np.array_equal(one.hidden, other.hidden)


def test_any_size_is_taken(model: Any) -> None:
    """A photograph of a phone, or a panorama, would end in an error or fill the memory."""
    sizes = [(300, 200), (200, 300), (900, 100), (5, 7)]
    seen = see_images(model, [Image.new("RGB", size, (10, 200, 30)) for size in sizes])
    assert [one.image.shape for one in seen] == [(32, 48, 3), (48, 32, 3), (32, 64, 3), (48, 32, 3)]
    (larger,) = see_images(model, [Image.new("RGB", (30, 30))], short_side=67)
    assert larger.image.shape == larger.features.shape == (64, 64, 3)


def test_colours_are_the_principal_components() -> None:
    """Equal features would have different colours, or the strongest direction would not be red."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 9.0, 0.1, 3.0])
    grid = torch.randn(4, 20, 20, generator=generator) * scale.view(4, 1, 1)
    colors, again = feature_colors([grid, grid[:, :5]])
    assert np.array_equal(colors[:5], again)
    red, green = colors[..., 0].astype(float).ravel(), colors[..., 1].astype(float).ravel()
    assert abs(np.corrcoef(red, grid[1].flatten().numpy())[0, 1]) > 0.95
    assert abs(np.corrcoef(green, grid[3].flatten().numpy())[0, 1]) > 0.95
    assert colors.min() == 0 and colors.max() == 255
    assert feature_colors([torch.ones(1, 2, 2)])[0].shape == (2, 2, 3)


def test_neighbours_are_the_nearest_by_cosine(model: Any) -> None:
    """The rows of the page would be arbitrary images."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    images = [Image.fromarray(one) for one in pixels] + [Image.fromarray(pixels[1])]
    found = nearest_neighbours(model, images, [1, 5, 0], 2)
    assert found[0][0] == 5 and found[1][0] == 1 and all(len(row) == 2 for row in found)
    assert 0 not in found[2]
    assert nearest_neighbours(model, images[:2], [0], 5) == [[1]]


def test_what_cannot_be_shown_is_said(run: Path, tmp_path: Path) -> None:
    """A fine-tuned model, or a forgotten file, would end in a traceback."""
    with pytest.raises(UserError, match=r"has no checkpoints/last.pth"):
        load_pretraining(write_run(tmp_path / "empty"))
    lonely = tmp_path / "far/away/lonely.pth"
    lonely.parent.mkdir(parents=True)
    lonely.write_bytes((run / "checkpoints/last.pth").read_bytes())
    with pytest.raises(UserError, match=r"no config.py is beside it. Give --config FILE"):
        load_pretraining(lonely)
    assert load_pretraining(lonely, run / "config.py") is not None


def test_a_checkpoint_brings_its_config(run: Path, tmp_path: Path) -> None:
    """The pictures of a checkpoint alone would need the folder it came from."""
    from mmengine.config import Config

    loaded = torch.load(run / "checkpoints/last.pth", weights_only=True)
    config = Config.fromfile(run / "config.py")._cfg_dict.to_dict()
    loaded["meta"] = {"run": {"config": {"model": config["model"]}}}
    torch.save(loaded, tmp_path / "alone.pth")
    assert load_pretraining(tmp_path / "alone.pth").mask_token is not None


def test_a_detector_is_refused(tmp_path: Path) -> None:
    """A detector's config has no attention to show."""
    folder = write_run(tmp_path / "a", 'default_scope = "mmdet"\nmodel = dict(type="MaskRCNN")\n')
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": {}}, folder / "checkpoints/last.pth")
    with pytest.raises(UserError, match="is not of a pretraining with MST"):
        load_pretraining(folder)
