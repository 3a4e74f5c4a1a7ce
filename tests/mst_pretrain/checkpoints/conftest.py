"""Small networks with drawn weights, saved as their projects save them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch

from mst_pretrain.checkpoints import convert_checkpoint

SMALL: dict[str, dict[str, Any]] = {
    "vit-tiny-test": dict(
        model="vit_small_patch16_224", model_args=dict(img_size=64, embed_dim=48, depth=2, num_heads=3)
    ),
    "swin-tiny-test": {},  # a Swin's shapes tell all
}


def written_for(library: str | None, format: str, architecture: str, folder: Path) -> Path:
    """A project's file of a small network, or what it becomes for a library."""
    path = folder / "a.pth"
    torch.save(foreign.checkpoint(format, architecture, seed=1), path)
    if library is None:
        return path
    converted = folder / ("hf" if library == "huggingface" else "b.pth")
    convert_checkpoint(path, converted, library, **SMALL[architecture])
    return converted


@pytest.fixture(autouse=True)
def small_networks(one_thread: None) -> None:
    """Small networks are not worth a second thread."""


@pytest.fixture(scope="session")
def foreign_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Any]]:
    """A project's file and the object in it, by format and architecture."""
    folder, made = tmp_path_factory.mktemp("foreign"), {}

    def make(format: str, architecture: str) -> tuple[Path, Any]:
        if (format, architecture) not in made:
            path = folder / f"{format}_{architecture}.pth"
            saved = foreign.checkpoint(format, architecture, seed=len(made))
            torch.save(saved, path)
            made[format, architecture] = path, saved
        return made[format, architecture]

    return make
