"""What a predictor takes from its checkpoint and what from its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from PIL import Image
from torch import nn

from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
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


class Broken:
    """A user's transform with a defect."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("gt_depth")


def loading(*steps: Any) -> Predictor:
    """A predictor that only loads."""
    predictor = Predictor.__new__(Predictor)
    predictor.pipeline = Compose([LoadImageFromFile(), *steps])
    return predictor


def test_a_transforms_error_is_not_the_files(tmp_path: Path) -> None:
    """Every image would be called broken because of a defect in a transform, and left out."""
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    assert loading().load(tmp_path / "a.png")["img"].shape == (8, 9, 3)
    with pytest.raises(KeyError, match="gt_depth"):
        loading(Broken()).load(tmp_path / "a.png")


def test_a_file_that_opencv_cannot_decode_is_named(tmp_path: Path) -> None:
    """One broken file of a folder would end the prediction of all the others."""
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    whole = bytearray((tmp_path / "a.jpg").read_bytes())
    whole[2:4] = b"\0\0"  # the start and end markers are there, so the quick check finds no fault
    (tmp_path / "a.jpg").write_bytes(whole)
    for steps in ((), (Broken(),)):
        with pytest.raises(UserError, match=r"a\.jpg cannot be decoded \(.+\)\. Copy it again"):
            loading(*steps).load(tmp_path / "a.jpg")


def test_a_refused_value_of_the_model_is_told(tmp_path: Path) -> None:
    """A value that no backbone takes would end a prediction in a traceback."""
    cfg = load_config(CONFIG)
    cfg.model.backbone.out_indices = (3, 2, 1, 0)
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"mask_rcnn\.py: out_indices must rise.*Correct that value"):
        Predictor(cfg, tmp_path / "a.pth", device="cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x", "GPU:0"])
def test_a_device_that_is_not_there_is_told(tmp_path: Path, device: str) -> None:
    """A slip in --device would end in a traceback of PyTorch."""
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"^--device {device} cannot be used here\. Give cpu"):
        Predictor(load_config(CONFIG), tmp_path / "a.pth", device=device)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("test_dataloader.dataset.type", "CocoDatset", "is not a registered type; there are CocoDataset"),
        ("model.roi_head", "a", "model.roi_head is 'a', which is not a dictionary"),
        ("test_dataloader.dataset.pipeline", ["Resize"], "pipeline.0 is 'Resize', which is not a dictionary"),
    ],
)
def test_a_value_of_another_kind_is_told_as_in_a_test(
    tmp_path: Path, key: str, value: Any, said: str
) -> None:
    """A config that tools/test.py refuses would end a prediction in a traceback."""
    cfg = load_config(CONFIG)
    cfg.merge_from_dict({key: value})
    with pytest.raises(UserError) as error:
        Predictor(cfg, tmp_path / "a.pth", device="cpu")
    assert said in str(error.value)
