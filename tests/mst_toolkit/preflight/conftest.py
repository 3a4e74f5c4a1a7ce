"""A toy pretraining config and its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.mst_pretrain.conftest import TOY_CONFIG


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 17 images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(17):
        pixels = np.kron(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{index:02}.jpg")
    return folder


@pytest.fixture
def toy(tmp_path: Path, images: Path) -> Path:
    """A config that trains in milliseconds."""
    path = tmp_path / "toy.py"
    path.write_text(
        TOY_CONFIG.replace("model = dict(", f"data_root = {str(images)!r}\nmodel = dict(", 1).replace(
            "dataset=dict(", f"dataset=dict(data_root={str(images)!r},", 1
        )
    )
    return path
