"""mmcv's calling convention on torchvision's kernels: outputs are written into the tensors given.

Half types are computed in float32: torchvision has no bfloat16 kernels, and none for float16 on the CPU.
"""

from __future__ import annotations

import torch
import torchvision  # noqa: F401, registers torch.ops.torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the boxes kept, by falling score.

    Args:
        boxes: [N, 4] float of any width (x1, y1, x2, y2) in pixels.
        scores: [N] float.
        iou_threshold: A box overlapping a better one by more than this is dropped.
        offset: 0 or 1; 1 counts x2 and y2 as inside, so a side is ``x2 - x1 + 1``.

    Returns:
        [M] int64.
    """
    boxes = _full(boxes)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return torch.ops.torchvision.nms(boxes, scores.to(boxes.dtype), iou_threshold)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average-pooled regions [K, C, aligned_height, aligned_width], written into ``output``.

    Args:
        input: [N, C, H, W] float.
        rois: [K, 5] (image index, x1, y1, x2, y2) in pixels.
        output: Receives the result.
        argmax_y: Unused (max pooling).
        argmax_x: Unused (max pooling).
        aligned_height: Rows of the output.
        aligned_width: Columns of the output.
        spatial_scale: Feature cells per pixel.
        sampling_ratio: Samples per bin and axis; 0 = as many as cells.
        pool_mode: Must be 1 (average).
        aligned: Shift by half a cell, as detectron2.

    Raises:
        RuntimeError: Max pooling, which torchvision has no kernel for.
    """
    _only_average(pool_mode)
    features = _full(input)
    pooled = torch.ops.torchvision.roi_align(
        features,
        rois.to(features.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` for its input, written into ``grad_input`` [N, C, H, W]."""
    _only_average(pool_mode)
    grad = _full(grad_output)
    gradient = torch.ops.torchvision._roi_align_backward(
        grad,
        rois.to(grad.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
    grad_input.copy_(gradient)


def _full(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, wider types as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _only_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise RuntimeError("RoIAlign with pool_mode='max' needs a compiled mmcv; use pool_mode='avg'.")
