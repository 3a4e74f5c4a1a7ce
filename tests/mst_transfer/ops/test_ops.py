"""NMS and RoIAlign behind mmcv, against the formulas; what mmcv gets when an operator is missing."""

from __future__ import annotations

import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import mst_transfer  # noqa: F401, installs the kernels before mmcv.ops is imported
from mst_transfer import ops
from mst_transfer.ops import torchvision_ops

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
on_devices = pytest.mark.parametrize("device", DEVICES)
on_halves = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    """Greedy suppression in Python numbers: a box goes when its IoU with a kept one is above the threshold."""

    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(0.0, x2 - x1 + offset) * max(0.0, y2 - y1 + offset)

    kept: list[int] = []
    rows = boxes.double().tolist()
    for i in sorted(range(len(rows)), key=lambda i: -float(scores[i])):
        a = rows[i]
        for b in (rows[j] for j in kept):
            shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
            if shared > threshold * (area(*a) + area(*b) - shared):
                break
        else:
            kept.append(i)
    return kept


def axis_weights(start: float, length: float, bins: int, ratio: int, cells: int) -> Tensor:
    """[bins, cells] float64: mean over a bin's samples of the hat function at the clamped sample position."""
    step = length / bins
    count = ratio or math.ceil(step)
    positions = start + step * (
        torch.arange(bins)[:, None] + (torch.arange(count, dtype=torch.float64) + 0.5) / count
    )
    inside = (positions >= -1) & (positions <= cells)
    hats = (1 - (positions.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()).clamp(min=0)
    return (hats * inside[..., None]).mean(1)


def plain_roi_align(
    images: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """Average of bilinear samples per bin [code: Mask R-CNN], float64, differentiable; separable per axis."""
    outputs = []
    for index, *box in rois.tolist():
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0.0) for value in box)
        least = 0.0 if aligned else 1.0
        rows = axis_weights(y1, max(y2 - y1, least), size[0], ratio, images.shape[2])
        columns = axis_weights(x1, max(x2 - x1, least), size[1], ratio, images.shape[3])
        outputs.append(torch.einsum("rh,chw,sw->crs", rows, images[int(index)], columns))
    return torch.stack(outputs)


def some_boxes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Overlapping boxes with whole pixel corners, all scores different."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 40, (count, 2), generator=generator).float()
    side = torch.randint(1, 25, (count, 2), generator=generator).float()
    return torch.cat([corner, corner + side], 1), torch.randperm(count, generator=generator) / count


def some_rois() -> Tensor:
    """[5, 5]: inside, across the border, wholly outside, thinner than a cell, and large, on two images."""
    return torch.tensor(
        [
            [0, 8.3, 4.1, 60.2, 44.9],
            [1, -20.0, -9.5, 30.0, 33.0],
            [1, 200.0, 300.0, 260.0, 340.0],
            [0, 33.0, 20.0, 33.4, 20.2],
            [1, 2.0, 1.0, 99.0, 77.0],
        ]
    )


@on_devices
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_nms(device: str, offset: int, threshold: float) -> None:
    """Detections would be dropped or kept wrongly, in another order, or by the side of the other offset."""
    from mmcv.ops import nms

    boxes, scores = some_boxes(120, seed=int(10 * threshold) + offset)
    detections, kept = nms(boxes.to(device), scores.to(device), threshold, offset=offset)
    expected = plain_nms(boxes, scores, threshold, offset)
    assert kept.tolist() == expected and 5 < len(expected) < 120
    assert torch.equal(detections.cpu(), torch.cat([boxes, scores[:, None]], 1)[expected])


@on_devices
def test_nms_offset_changes_the_answer(device: str) -> None:
    """Offset 1 would be ignored."""
    boxes = torch.tensor([[0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 1.0, 1.0]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    # offset 0: 1 / 3; offset 1: 4 / 8
    assert torchvision_ops.nms(boxes, scores, iou_threshold=0.4, offset=0).tolist() == [0, 1]
    assert torchvision_ops.nms(boxes, scores, iou_threshold=0.4, offset=1).tolist() == [0]
    assert torchvision_ops.nms(boxes, scores, iou_threshold=0.5, offset=1).tolist() == [0, 1]  # equal is kept


@on_devices
@on_halves
def test_nms_in_half_types(device: str, dtype: torch.dtype) -> None:
    """Offset 1 would vanish: 2048 + 1 is 2048 in float16."""
    boxes = torch.tensor(
        [[2048.0, 0, 2048, 2], [2048, 0, 2048, 0], [0, 0, 8, 8], [0, 0, 8, 7]], device=device
    ).to(dtype)
    scores = torch.tensor([0.5, 0.25, 0.75, 0.125], device=device).to(dtype)
    # first pair 1 x 3 against 1 x 1, second 81 against 72
    assert torchvision_ops.nms(boxes, scores, iou_threshold=0.3, offset=1).tolist() == [2, 0]
    assert torchvision_ops.nms(boxes, scores, iou_threshold=0.34, offset=1).tolist() == [2, 0, 1]


@on_devices
def test_nms_of_nothing_and_limits(device: str) -> None:
    """An image without detections would fail, or score threshold and maximum would not act."""
    from mmcv.ops import batched_nms, nms

    boxes, scores = (tensor.to(device) for tensor in some_boxes(60, seed=3))
    assert nms(boxes[:0], scores[:0], 0.5)[1].tolist() == []
    everything = nms(boxes, scores, 0.5)[1].tolist()
    assert nms(boxes, scores, 0.5, max_num=4)[1].tolist() == everything[:4]
    strong = [i for i in everything if scores[i] > 0.5]
    assert nms(boxes, scores, 0.5, score_threshold=0.5)[1].tolist() == strong
    classes = torch.arange(60, device=device) % 3
    kept = batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.5})[1].tolist()
    apart = [c + 3 * i for c in range(3) for i in plain_nms(boxes[c::3], scores[c::3], 0.5, 0)]
    assert sorted(kept) == sorted(apart)


@on_devices
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("size", [(7, 7), (3, 5)])
def test_roi_align(device: str, aligned: bool, ratio: int, size: tuple[int, int]) -> None:
    """Features of a region, or the gradient that trains the backbone, would belong to another place."""
    from mmcv.ops import roi_align

    torch.manual_seed(0)
    images = torch.randn(2, 3, 10, 13)
    grad = torch.randn(5, 3, *size)
    given = images.clone().to(device).requires_grad_()
    pooled = roi_align(given, some_rois().to(device), size, 1 / 8, ratio, "avg", aligned)
    pooled.backward(grad.to(device))
    plain = images.double().requires_grad_()
    expected = plain_roi_align(plain, some_rois().double(), size, 1 / 8, ratio, aligned)
    expected.backward(grad.double())
    torch.testing.assert_close(pooled.cpu().double(), expected, rtol=1e-4, atol=1e-5)
    assert given.grad is not None and plain.grad is not None
    torch.testing.assert_close(given.grad.cpu().double(), plain.grad, rtol=1e-4, atol=1e-5)
    assert pooled[2].abs().max() == 0 and pooled[4].abs().max() > 0.1


@on_devices
def test_roi_align_of_no_regions(device: str) -> None:
    """An image without proposals would fail, forward or backward."""
    from mmcv.ops import roi_align

    images = torch.randn(1, 2, 4, 4, device=device, requires_grad=True)
    pooled = roi_align(images, torch.zeros(0, 5, device=device), 7, 0.25)
    assert pooled.shape == (0, 2, 7, 7)
    pooled.sum().backward()
    assert images.grad is not None and images.grad.abs().sum() == 0


@on_devices
@on_halves
def test_roi_align_in_half_types(device: str, dtype: torch.dtype) -> None:
    """Under AMP the operator would fail on bfloat16, or round a coordinate of 1333 to a multiple of 8."""
    from mmcv.ops import roi_align

    torch.manual_seed(0)
    rois = torch.tensor([[0, 901.7, 40.3, 1331.3, 300.9]], device=device)
    images = torch.randn(1, 2, 40, 170, device=device).to(dtype)
    given, full = images.clone().requires_grad_(), images.float().requires_grad_()
    half = roi_align(given, rois, 7, 1 / 8)
    expected = roi_align(full, rois, 7, 1 / 8)
    assert half.dtype == dtype and torch.equal(half, expected.to(dtype))
    grad = torch.randn_like(expected).to(dtype)
    half.backward(grad)
    expected.backward(grad.float())
    assert given.grad is not None and full.grad is not None
    assert given.grad.dtype == dtype and torch.equal(given.grad, full.grad.to(dtype))


@on_devices
def test_outputs_are_written_in_place(device: str) -> None:
    """mmcv reads the tensors it gave: they would keep what they held."""
    images, rois = torch.rand(1, 2, 6, 6, device=device) + 1, torch.tensor([[0.0, 0, 0, 6, 6]], device=device)
    output, grad_input = torch.full((1, 2, 3, 3), -7.0, device=device), torch.full_like(images, -7.0)
    rest: dict[str, Any] = {
        "aligned_height": 3,
        "aligned_width": 3,
        "spatial_scale": 1.0,
        "sampling_ratio": 0,
    }
    rest |= {"pool_mode": 1, "aligned": True}
    empty = images.new_zeros(0)
    torchvision_ops.roi_align_forward(images, rois, output, empty, empty, **rest)
    torchvision_ops.roi_align_backward(torch.ones_like(output), rois, empty, empty, grad_input, **rest)
    assert output.min() >= 1
    # every bin's weights sum to 1, so 9 bins give a channel 9
    torch.testing.assert_close(grad_input.sum((2, 3)).cpu(), torch.full((1, 2), 9.0))


def test_max_pooling_is_refused() -> None:
    """RoIAlign with maxima would silently return means."""
    images, rois, output = torch.rand(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), torch.zeros(1, 1, 2, 2)
    with pytest.raises(RuntimeError, match="pool_mode='max' needs a compiled mmcv"):
        torchvision_ops.roi_align_forward(images, rois, output, output, output, 2, 2, 1.0, 0, 0, True)
    with pytest.raises(RuntimeError, match="pool_mode='max' needs a compiled mmcv"):
        torchvision_ops.roi_align_backward(output, rois, output, output, images, 2, 2, 1.0, 0, 0, True)


def test_other_operators_say_what_to_do() -> None:
    """mmcv would not import without them, or a model would fail without naming the operator and the remedy."""
    extension = ops.TorchvisionOps()
    assert hasattr(extension, "ms_deform_attn_forward") and not hasattr(extension, "__path__")
    for name in ("softnms", "deform_conv_forward"):
        with pytest.raises(RuntimeError, match=f"'{name}' is not available.*MMCV_WITH_OPS=1"):
            getattr(extension, name)(1, key=2)


@pytest.mark.skipif(
    not isinstance(sys.modules.get("mmcv._ext"), ops.TorchvisionOps), reason="mmcv is compiled"
)
def test_through_mmcv_and_models() -> None:
    """mmdet or mmseg would not import, or mmcv's other functions would fail without naming their operator."""
    import mmdet.models
    import mmseg.models
    from mmcv.ops import deform_conv2d, soft_nms

    assert mmdet.models.MaskRCNN and mmseg.models.EncoderDecoder
    with pytest.raises(RuntimeError, match="'softnms'"):
        soft_nms(*some_boxes(4, seed=0))
    with pytest.raises(
        RuntimeError, match=r"'deform_conv_forward' is not available.*without compiled operators"
    ):
        deform_conv2d(torch.rand(1, 2, 5, 5), torch.zeros(1, 18, 5, 5), torch.rand(2, 2, 3, 3), 1, 1)


def test_compiled_mmcv_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmcv's own operators, loaded or on disk, would be replaced by ours."""
    own = ModuleType("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", own)
    assert ops.use_torchvision_ops() is False and sys.modules["mmcv._ext"] is own
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    monkeypatch.setattr(ops, "find_spec", lambda name: ModuleSpec(name, None))
    assert ops.use_torchvision_ops() is False and "mmcv._ext" not in sys.modules


def test_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second import would exchange the module that mmcv already holds."""
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    monkeypatch.setattr(ops, "find_spec", lambda name: None)
    assert ops.use_torchvision_ops() is True
    first = sys.modules["mmcv._ext"]
    assert isinstance(first, ops.TorchvisionOps)
    assert ops.use_torchvision_ops() is True and sys.modules["mmcv._ext"] is first
