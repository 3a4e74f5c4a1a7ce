"""Attention maps under autocast: float32 from the scores on, so that the mask is not decided by bfloat16's rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.method.backbones import (
    Trunk,
    build_trunk,
    forward_trunk,
    swin_attention_map,
    vit_attention_map,
)
from mst_pretrain.method.masking import make_mask

Randomize = Callable[[nn.Module, int], nn.Module]
VIT: dict[str, Any] = dict(name="vit_tiny_patch16_224", embed_dim=24, depth=2, num_heads=3)
SWIN: dict[str, Any] = dict(
    name="swin_tiny_patch4_window7_224", embed_dim=8, depths=(1, 1, 1, 2), num_heads=(1, 1, 2, 2)
)
BATCH = 2
CASES = pytest.mark.parametrize(
    ("family", "size"),
    [("vit", (224, 224)), ("vit", (96, 160)), ("swin", (224, 224)), ("swin", (160, 224))],
)


def build(randomize: Randomize, family: str) -> tuple[Trunk, Any]:
    """A trunk and its last block."""
    trunk = randomize(build_trunk(**(VIT if family == "vit" else SWIN)), 3).eval()
    return trunk, (trunk.blocks if family == "vit" else trunk.layers[-1].blocks)[-1]


def picture(size: tuple[int, int]) -> Tensor:
    return torch.randn(BATCH, 3, *size, generator=torch.Generator().manual_seed(1))


def from_vit(block: Any, qkv: Tensor, height: int, width: int) -> Tensor:
    """[B, h, w] float32 from the layer's own queries and keys [B, 1 + h * w, 3 * C], head by head."""
    heads, channels = block.attn.num_heads, block.attn.head_dim
    query, key = qkv.float().unflatten(2, (3, heads, channels)).unbind(2)[:2]
    received = torch.zeros(BATCH, 1 + height * width)
    for image in range(BATCH):
        for head in range(heads):
            scores = key[image, :, head] @ query[image, 0, head] / channels**0.5
            received[image] += scores.softmax(0) / heads
    return received[:, 1:].view(BATCH, height, width)


def from_swin(block: Any, qkv: Tensor, height: int, width: int) -> Tensor:
    """[B, h, w] float32 of one unshifted window of 7 x 7, padded below and to the right, query by query."""
    attn, received = block.attn, torch.zeros(BATCH, 49)
    bias = attn._get_rel_pos_bias().detach().float()[0]
    real = [row * 7 + column for row in range(height) for column in range(width)]
    query, key = qkv.float().unflatten(2, (3, attn.num_heads, -1)).unbind(2)[:2]
    for image in range(BATCH):
        for head in range(attn.num_heads):
            for token in real:
                scores = key[image, :, head] @ query[image, token, head] * attn.scale
                received[image] += (scores + bias[head, token]).softmax(0)
    received /= attn.num_heads * len(real)
    return received.view(BATCH, 7, 7)[:, :height, :width]


@torch.no_grad()
@CASES
def test_map_is_float32_under_autocast(randomize: Randomize, family: str, size: tuple[int, int]) -> None:
    """In bfloat16 a dozen values stand for 49 tokens: ties would decide which of them are hidden."""
    trunk, block = build(randomize, family)
    products: list[Tensor] = []
    block.attn.qkv.register_forward_hook(lambda module, given, result: products.append(result))
    stride = 16 if family == "vit" else 32
    height, width = size[0] // stride, size[1] // stride
    with torch.autocast("cpu", torch.bfloat16):
        attention = forward_trunk(trunk, picture(size), with_attention=True).attention
    assert attention is not None and attention.dtype == torch.float32
    assert attention.shape == (BATCH, height, width)
    qkv = products[0]  # the map is made before the block runs
    assert qkv.dtype == torch.bfloat16
    expected = (from_vit if family == "vit" else from_swin)(block, qkv, height, width)
    torch.testing.assert_close(attention, expected, rtol=1e-5, atol=1e-8)
    for image in range(BATCH):
        assert len(attention[image].unique()) > 0.9 * height * width
    hidden = dict(mode="attention", seeds=torch.arange(BATCH), num=4, prob=1.0)
    found, wanted = (make_mask(attention=values, **hidden) for values in (attention, expected))
    assert found is not None and wanted is not None and found.any()
    assert torch.equal(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "swin"])
def test_maps_of_a_block_are_float32_under_autocast(randomize: Randomize, family: str) -> None:
    """The functions themselves would hand on bfloat16, whoever calls them."""
    _, block = build(randomize, family)
    generator = torch.Generator().manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16):
        if family == "vit":
            found = vit_attention_map(block, torch.randn(1, 1 + 35, 24, generator=generator), 5, 7)
        else:
            found = swin_attention_map(block, torch.randn(1, 5, 7, 64, generator=generator))
    assert found.dtype == torch.float32 and found.shape == (1, 5, 7)
    assert not torch.equal(found, found.bfloat16().float())
    assert len(found.unique()) == 35
