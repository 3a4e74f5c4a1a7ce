"""NMS and RoIAlign through mmcv against loops over boxes, bins and samples in float64; nothing to do; ties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mst_transfer  # noqa: F401, installs the kernels before mmcv.ops is imported

Corner = tuple[int, int, float]  # row, column, weight


def corners(y: float, x: float, height: int, width: int) -> list[Corner]:
    """Cells and weights of one bilinear sample; none when it lies more than a cell outside."""
    if not (-1 <= y <= height and -1 <= x <= width):
        return []
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down = y - top if top < height - 1 else 0.0
    along = x - left if left < width - 1 else 0.0
    return [
        (top, left, (1 - down) * (1 - along)),
        (top, right, (1 - down) * along),
        (bottom, left, down * (1 - along)),
        (bottom, right, down * along),
    ]


def loops(
    images: Tensor, rois: Tensor, grad: Tensor, scale: float, ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """RoIAlign (Mask R-CNN, section 3; ``aligned`` as detectron2): each bin the mean of its bilinear samples.

    Returns:
        Pooled regions like ``grad`` [K, C, rows, columns], and the gradient of (pooled * grad).sum() for ``images``.
    """
    pooled, gradient = torch.zeros_like(grad), torch.zeros_like(images)
    height, width = images.shape[2:]
    rows, columns = grad.shape[2:]
    for k, (index, *box) in enumerate(rois.tolist()):
        left, top, right, bottom = (side * scale - (0.5 if aligned else 0.0) for side in box)
        tall, wide = bottom - top, right - left
        if not aligned:
            tall, wide = max(tall, 1.0), max(wide, 1.0)
        bin_height, bin_width = tall / rows, wide / columns
        down, along = ratio or math.ceil(bin_height), ratio or math.ceil(bin_width)
        for row in range(rows):
            for column in range(columns):
                for i in range(down):
                    for j in range(along):
                        y = top + (row + (i + 0.5) / down) * bin_height
                        x = left + (column + (j + 0.5) / along) * bin_width
                        for r, c, weight in corners(y, x, height, width):
                            share = weight / (down * along)
                            pooled[k, :, row, column] += share * images[int(index), :, r, c]
                            gradient[int(index), :, r, c] += share * grad[k, :, row, column]
    return pooled, gradient


def drawn_rois(images: int, count: int, side: float) -> Tensor:
    """[count, 5] of any place and shape: beyond each border, thinner than a cell, larger than the image."""
    generator = torch.Generator().manual_seed(count)
    index = torch.randint(images, (count, 1), generator=generator)
    corner = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.4) * side
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) ** 3 * 1.5 * side
    return torch.cat([index.double(), corner, corner + size], 1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_roi_align_is_the_loops(dtype: torch.dtype, ratio: int, aligned: bool) -> None:
    """Features of a region, or the gradient that trains the backbone, would belong to another place."""
    from mmcv.ops import roi_align

    generator = torch.Generator().manual_seed(ratio)
    images = torch.randn(3, 2, 9, 13, generator=generator, dtype=torch.float64)
    rois, scale = drawn_rois(3, 24, side=100.0), 1 / 8
    grad = torch.randn(24, 2, 3, 4, generator=generator, dtype=torch.float64)
    if dtype == torch.float32:  # the reference sees what the operator sees
        images, rois, grad = (tensor.float().double() for tensor in (images, rois, grad))
    given = images.to(dtype).requires_grad_()
    pooled = roi_align(given, rois.to(dtype), (3, 4), scale, ratio, "avg", aligned)
    pooled.backward(grad.to(dtype))
    expected, gradient = loops(images, rois, grad, scale, ratio, aligned)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    assert given.grad is not None and pooled.dtype == dtype
    torch.testing.assert_close(pooled.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(given.grad.double(), gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_image_with_no_proposal(ratio: int, aligned: bool) -> None:
    """Regions would shift to a neighbour when an image between has none, or that image would get a gradient."""
    from mmcv.ops import RoIAlign

    images = torch.randn(3, 2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rois = drawn_rois(1, 4, side=24.0)
    rois[:, 1:] = rois[:, 1:].abs()
    rois[2:, 0] = 2  # images 0 and 2; none of image 1
    grad = torch.ones(4, 2, 2, 2, dtype=torch.float64)
    given = images.clone().requires_grad_()
    pooled = RoIAlign((2, 2), 1 / 4, ratio, "avg", aligned)(given, rois)
    pooled.backward(grad)
    expected, gradient = loops(images, rois, grad, 1 / 4, ratio, aligned)
    assert given.grad is not None
    torch.testing.assert_close(pooled, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(given.grad, gradient, rtol=1e-9, atol=1e-9)
    assert given.grad[1].abs().max() == 0 and given.grad[0].abs().max() > 0 < given.grad[2].abs().max()


@pytest.mark.parametrize("images", [0, 2])
def test_no_proposal_at_all(images: int) -> None:
    """A batch without proposals, or a level of the pyramid without any, would fail in forward or backward."""
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
    from mmdet.structures.bbox import bbox2roi

    layer = {"type": "RoIAlign", "output_size": 3, "sampling_ratio": 0}
    extractor = SingleRoIExtractor(layer, out_channels=2, featmap_strides=[4, 8])
    levels = [torch.randn(2, 2, side, side, requires_grad=True) for side in (8, 4)]
    box = torch.tensor([[1.0, 2.0, 20.0, 15.0]])[:images]  # small boxes go to the first level
    pooled = extractor(levels, bbox2roi([box, torch.zeros(0, 4)]))
    assert pooled.shape == (len(box), 2, 3, 3)
    pooled.sum().backward()
    used = [float(level.grad.abs().sum()) if level.grad is not None else 0.0 for level in levels]
    assert used == [pytest.approx(2 * 9.0 * len(box)), 0.0]


# NMS


def greedy(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> list[int]:
    """Kept indices by falling score, equal scores by index: a box goes when its IoU with a kept one is larger."""
    rows = boxes.double().tolist()
    kept: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-float(scores[i]), i)):
        if all(overlap(rows[i], rows[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def overlap(a: list[float], b: list[float], offset: int) -> float:
    """Intersection over union of (x1, y1, x2, y2); 0 for two empty boxes."""

    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(0.0, x2 - x1 + offset) * max(0.0, y2 - y1 + offset)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return shared / ((area(*a) + area(*b) - shared) or 1.0)


def drawn_boxes(count: int, seed: int, levels: int) -> tuple[Tensor, Tensor]:
    """Overlapping boxes, many of them twice, with scores of few levels: ties everywhere."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 12, (count, 2), generator=generator).double() * 2
    side = torch.randint(0, 10, (count, 2), generator=generator).double()
    return torch.cat([corner, corner + side], 1), torch.randint(
        levels, (count,), generator=generator
    ).double() / levels


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.71])  # 1/4 and 1/2 are met exactly
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nms_with_ties(dtype: torch.dtype, threshold: float, offset: int) -> None:
    """Of equal scores another box would win than the first, or boxes without area would fail or suppress."""
    from mmcv.ops import nms

    boxes, scores = drawn_boxes(150, seed=offset, levels=4)
    detections, kept = nms(boxes.to(dtype), scores.to(dtype), threshold, offset=offset)
    expected = greedy(boxes, scores, threshold, offset)
    assert kept.tolist() == expected and 5 < len(expected) < 150
    assert torch.equal(detections.double(), torch.cat([boxes, scores[:, None]], 1)[expected])


def test_nms_at_the_threshold() -> None:
    """An IoU of exactly the threshold would suppress."""
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 4]])  # IoU 1/2 with the first, then 1
    scores = torch.tensor([0.9, 0.8, 0.9])
    assert nms(boxes, scores, 0.5)[1].tolist() == [0, 1]
    assert nms(boxes, scores, 0.499)[1].tolist() == [0]


@pytest.mark.parametrize(
    ("agnostic", "split"),
    [(False, 10000), (True, 10000), (False, 20)],  # with more than split_thr boxes mmcv goes class by class
)
def test_batched_nms(agnostic: bool, split: int) -> None:
    """A box would suppress one of another class (or not, where classes are ignored), also in the branch for many."""
    from mmcv.ops import batched_nms

    boxes, scores = drawn_boxes(90, seed=7, levels=1000)
    scores = scores + torch.arange(90) * 1e-6  # all different: the branch for many sorts anew
    classes = torch.arange(90) % 4
    cfg: dict[str, Any] = {"type": "nms", "iou_threshold": 0.4, "split_thr": split}
    detections, kept = batched_nms(boxes, scores, classes, cfg, class_agnostic=agnostic)
    groups = [torch.arange(90)] if agnostic else [torch.arange(c, 90, 4) for c in range(4)]
    survivors = [int(group[i]) for group in groups for i in greedy(boxes[group], scores[group], 0.4)]
    expected = sorted(survivors, key=lambda i: -float(scores[i]))
    assert kept.tolist() == expected and len(expected) < 90
    assert torch.equal(detections, torch.cat([boxes, scores[:, None]], 1)[expected])


def test_nms_of_nothing() -> None:
    """An image without detections would fail (mmcv's batched_nms asks for a box, mmdet asks it for none)."""
    from mmcv.ops import nms

    detections, kept = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert detections.shape == (0, 5) and kept.shape == (0,)
