"""A trained segmentor as an ONNX file: pixels to class scores at the image's own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_pretrain.checkpoints.onnx_file import write_onnx
from mst_pretrain.runtime.errors import UserError

from .predictor import Predictor

SIDE = 512  # pixels, where the config crops no image


class PixelScores(nn.Module):
    """RGB pixels [B, 3, H, W] float32 of 0 to 255 to class scores (logits) [B, C, H, W]; their argmax is the label."""

    mean: Tensor
    std: Tensor

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.segmentor = segmentor
        prepare = segmentor.data_preprocessor
        self.register_buffer("mean", prepare.mean.clone())
        self.register_buffer("std", prepare.std.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Normalise, backbone and head, then to the image's size as mmseg does (bilinear)."""
        scores = self.segmentor.forward((images - self.mean) / self.std, mode="tensor")
        return F.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)


def segmentor_to_onnx(
    config: str | Path, checkpoint: str | Path, path: Path, image: int | None = None
) -> float:
    """Write a segmentor for images of one size, any number at once.

    Args:
        config: Of its training.
        checkpoint: Of its training.
        path: Ends in ``.onnx``.
        image: Side in pixels; None: the crop that it was trained with.

    Returns:
        Largest deviation of onnxruntime's scores from torch's, of the largest value.

    Raises:
        UserError: It is not a segmentor, or cannot be exported.
    """
    predictor = Predictor(config, checkpoint, device="cpu", dtype="float32")
    if predictor.config.get("default_scope") != "mmseg":
        raise UserError(f"{config} is not the config of a segmentor: only these are written as ONNX.")
    crop = (predictor.config.model.get("data_preprocessor") or {}).get("size") or (SIDE, SIDE)
    height, width = (image, image) if image is not None else (int(crop[0]), int(crop[1]))
    segmentor: Any = predictor.model
    with torch.no_grad():
        return write_onnx(PixelScores(segmentor), (height, width), path, "scores", scale=100.0)
