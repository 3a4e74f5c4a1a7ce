"""Toy models, images and configs for the tests of pretraining."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from mst_pretrain.runtime.config import load_config

BASE = Path(__file__).parents[2] / "configs/_base_/mst_pretrain.py"
TOY_VIT = dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
TOY_HEAD = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8)
TOY_CONFIG = f"""
_base_ = {str(BASE)!r}
model = dict(
    backbone=dict({TOY_VIT}, drop_path_rate=0.0),
    head=dict({TOY_HEAD}),
    masking=dict(mode="attention", num=2, prob=0.5),
    decoder=dict(width=8, min_width=4),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        crops=dict(
            global_crops=[dict(size=32), dict(size=32, blur_probability=0.1, solarize_probability=0.2)],
            local_crop=dict(size=16, scale=(0.1, 0.4)),
            local_count=2,
        ),
    ),
)
train_cfg = dict(max_epochs=5)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1000))
"""


@pytest.fixture(autouse=True)
def small_networks(one_thread: None) -> None:
    """Threads cost toy models more than they give, most of all where other programs use the cores too."""


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code computes in float32 is computed in float64, so a formula can be compared to 1e-10."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.fixture(scope="session")
def randomize() -> Callable[[nn.Module, int], nn.Module]:
    """Draw every weight of a module, norms and biases too, so that no term of a formula is 0 or 1 by chance."""

    def draw(module: nn.Module, seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) - 0.5
                scale = name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name
                parameter.copy_(1 + noise if scale or name.endswith("original0") else 0.8 * noise)
        return module

    return draw


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 17 images of different sizes: smooth colour noise."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(17):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((56 + index, 48), Image.Resampling.BICUBIC).save(
            folder / f"{index}.png"
        )
    return folder


@pytest.fixture
def toy_config(images: Path, tmp_path: Path) -> Callable[..., Config]:
    """A config of the toy run; keyword arguments are dotted keys with ``__`` for the dot."""
    names = itertools.count()

    def make(**options: Any) -> Config:
        path = tmp_path / f"toy{next(names)}.py"
        path.write_text(TOY_CONFIG)
        given = {
            "data_root": str(images),
            **{key.replace("__", "."): value for key, value in options.items()},
        }
        cfg = load_config(
            path, {f"+{key}" if key != "data_root" else key: value for key, value in given.items()}
        )
        cfg.work_dir = str(tmp_path / path.stem)
        cfg.experiment_name = f"{tmp_path.name}-{path.stem}"
        cfg.log_level = "WARNING"
        return cfg

    return make


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """``reference.py``, loaded by its path: pytest puts no folder of tests where ``import`` finds it."""
    path = Path(__file__).with_name("reference.py")
    spec = importlib.util.spec_from_file_location("mst_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
