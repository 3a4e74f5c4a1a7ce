"""What a predictor takes from its checkpoint and what from its config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mst_transfer.prediction.predictor import Predictor

CONFIG = "configs/quickstart/mask_rcnn.py"


@pytest.mark.parametrize("classes", [("bus", "car"), None], ids=["named", "nameless"])
def test_names_are_those_of_the_training(
    classes: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config edited since the training would put other names, and other category ids, on the boxes."""
    monkeypatch.setattr(Predictor, "_build", lambda *arguments: nn.Identity())
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {}, "meta": {"dataset_meta": {"classes": classes}} if classes else {}}, path)
    expected = classes or ("person", "car", "truck", "bus", "bicycle")
    assert Predictor(CONFIG, path, device="cpu").classes == expected
