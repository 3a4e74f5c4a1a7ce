"""The attention map beside timm's own softmax with fused attention off, which gives the same features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.method.backbones import Trunk, build_trunk, forward_trunk

Randomize = Callable[[nn.Module, int], nn.Module]
SMALL: dict[str, dict[str, Any]] = {
    "vit": dict(name="vit_tiny_patch16_224", embed_dim=24, depth=3, num_heads=3),
    "swin": dict(
        name="swin_tiny_patch4_window7_224", embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 2)
    ),
}
WHOLE = {"deit-s": "vit_small_patch16_224", "swin-t": "swin_tiny_patch4_window7_224"}
pytestmark = pytest.mark.usefixtures("double_precision")


def picture(height: int, width: int, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64)


def draw_at_full_width(trunk: Trunk) -> None:
    """Every tensor drawn, no wider than keeps the softmax of wide layers from choosing one token."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            matrix = parameter.ndim > 1 and name.endswith("weight")
            scale = parameter[0].numel() ** -0.5 if matrix else 0.2
            norm = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + scale * noise if norm else scale * noise)


def fuse(trunk: Trunk, fused: bool) -> list[Any]:
    """Switch fused attention in every layer; timm has it off in its Swins."""
    layers = [module for module in trunk.modules() if hasattr(module, "fused_attn")]
    assert len(layers) > 2
    for layer in layers:
        layer.fused_attn = fused
    return layers


def explicit(trunk: Trunk, images: Tensor) -> tuple[Tensor, Tensor]:
    """timm's features with fused attention off everywhere, and the last softmax [B, heads, queries, keys]."""
    seen: list[Tensor] = []
    layers = fuse(trunk, False)
    layers[-1].attn_drop.register_forward_hook(lambda module, given, result: seen.append(result))
    features = trunk.forward_features(images)
    (softmax,) = seen
    return features, softmax


def check(trunk: Trunk, images: Tensor) -> Tensor:
    """Compare and return the map [B, h, w]."""
    fuse(trunk, True)
    features = forward_trunk(trunk, images, with_attention=True)
    without = forward_trunk(trunk, images)
    expected, softmax = explicit(trunk, images)
    batch, stride = len(images), 16 if expected.ndim == 3 else 32
    height, width = images.shape[2] // stride, images.shape[3] // stride
    if expected.ndim == 3:
        pooled, grid = expected[:, 0], expected[:, 1:].unflatten(1, (height, width))
        assert softmax.shape[2:] == (1 + height * width, 1 + height * width)
        received = softmax[:, :, 0, 1:].mean(1).view(batch, height, width)
    else:
        pooled, grid = expected.mean((1, 2)), expected
        assert softmax.shape[0] == batch and softmax.shape[2:] == (49, 49)  # one window of 7 x 7 per image
        queries = softmax.mean(1).view(batch, 7, 7, 7, 7)[
            :, :height, :width
        ]  # padding: below and to the right
        received = queries.mean((1, 2))[:, :height, :width]
    close: dict[str, Any] = dict(rtol=1e-9, atol=1e-12)
    assert features.attention is not None and without.attention is None
    torch.testing.assert_close(features.attention, received, **close)
    for got in (features, without):
        torch.testing.assert_close(got.pooled, pooled, **close)
        torch.testing.assert_close(got.grid, grid.permute(0, 3, 1, 2), **close)
    return features.attention


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (96, 96), (96, 160), (160, 96)])
@pytest.mark.parametrize("family", SMALL)
def test_map_and_features_are_timms_unfused(randomize: Randomize, family: str, size: tuple[int, int]) -> None:
    """The mask would follow another attention than the one that makes the features, at some size."""
    trunk = build_trunk(**SMALL[family])
    randomize(trunk, 1)
    check(trunk.double().eval(), picture(*size, batch=2))


@torch.no_grad()
@pytest.mark.parametrize("kind", WHOLE)
def test_the_papers_networks_at_224(kind: str) -> None:
    """At the real widths, heads and grids the map would be another, or a share of the softmax be lost."""
    trunk = build_trunk(WHOLE[kind])
    draw_at_full_width(trunk)
    attention = check(trunk.double().eval(), picture(224, 224, batch=1))
    shape, share = {"deit-s": ((1, 14, 14), 196 / 197), "swin-t": ((1, 7, 7), 1.0)}[kind]
    assert attention.shape == shape and attention.sum().item() == pytest.approx(share, abs=0.02)
    relative = attention / attention.mean()
    assert relative.min() < 0.95 and relative.max() > 1.05 and attention.max() < 0.5
