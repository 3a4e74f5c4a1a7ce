"""A trained segmentor as ONNX gives the label maps that mmseg gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS

import mst_transfer  # noqa: F401  registers the backbones
from mst_pretrain.runtime.config import load_config
from mst_transfer.prediction.predictor import Predictor

ROOT = Path(__file__).parents[3]
VIT = f"""
_base_ = {str(ROOT / "configs/quickstart/upernet.py")!r}
model = dict(backbone=dict(init_cfg=None))
"""
SWIN = f"""
_base_ = {str(ROOT / "configs/quickstart/upernet.py")!r}
model = dict(
    backbone=dict(
        _delete_=True,
        type="MSTSwin",
        model="swin_tiny_patch4_window7_224",
        model_args=dict(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]),
    ),
    decode_head=dict(in_channels=[16, 32, 64, 128], in_index=[0, 1, 2, 3]),
    auxiliary_head=None,
)
"""


@pytest.fixture(params=[VIT, SWIN], ids=["vit", "swin"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A config and random weights of its segmentor."""
    (tmp_path / "config.py").write_text(request.param)
    cfg = load_config(tmp_path / "config.py")
    torch.manual_seed(0)
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "last.pth")
    return tmp_path / "config.py", tmp_path / "last.pth"


def test_scores_are_those_of_mmseg(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Colours would be exchanged or normalised twice, or scores have another size than the image."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from mst_transfer.prediction.onnx_segmentor import segmentor_to_onnx

    deviation = segmentor_to_onnx(*trained, tmp_path / "a.onnx", 64)
    assert deviation < 1e-3
    segmentor: Any = Predictor(*trained, device="cpu", dtype="float32").model
    pixels = torch.randint(
        0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    data = segmentor.data_preprocessor(
        {"inputs": [image.flip(0) for image in pixels]}, False
    )  # BGR, as mmcv reads
    with torch.no_grad():
        expected = segmentor.encode_decode(data["inputs"], [{"img_shape": (64, 64)}])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["scores"], {"images": pixels.float().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3)
