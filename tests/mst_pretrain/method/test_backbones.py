"""Trunks: features and attention equal timm's own, mask tokens enter at the right place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mst_pretrain.method.backbones import (
    Trunk,
    build_trunk,
    forward_trunk,
    output_stride,
    swin_attention_map,
    vit_attention_map,
)
from mst_pretrain.runtime.errors import UserError

Randomize = Callable[[nn.Module, int], nn.Module]
VIT: dict[str, Any] = dict(name="vit_tiny_patch16_224", embed_dim=24, depth=2, num_heads=3)
SWIN: dict[str, Any] = dict(
    name="swin_tiny_patch4_window7_224", embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 2)
)
SIZES = [(224, 224), (96, 96), (160, 224)]
pytestmark = pytest.mark.usefixtures("double_precision")


def build(randomize: Randomize, arguments: dict[str, Any], seed: int = 0, **more: Any) -> Trunk:
    trunk = build_trunk(**{**arguments, **more})
    randomize(trunk, seed)
    return trunk.double().eval()


def picture(size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def softmax_of(attention: Any, run: Callable[[], Any]) -> Tensor:
    """The softmax matrix of a timm attention layer with fused attention off, [., heads, queries, keys]."""
    seen: list[Tensor] = []
    fused, attention.fused_attn = attention.fused_attn, False
    handle = attention.attn_drop.register_forward_hook(lambda module, given, result: seen.append(result))
    with torch.no_grad():
        run()
    handle.remove()
    attention.fused_attn = fused
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("more", [{}, {"reg_tokens": 2}, {"qk_norm": True}, {"no_embed_class": True}])
def test_vit_is_timms(randomize: Randomize, size: tuple[int, int], more: dict[str, Any]) -> None:
    """Exported weights would give other features in timm, or the mask would follow another attention."""
    trunk = build(randomize, VIT, **more)
    attention: Any = trunk.blocks[-1].attn
    assert isinstance(trunk, VisionTransformer) and attention.fused_attn
    images, (height, width) = picture(size), (size[0] // 16, size[1] // 16)
    with torch.no_grad():
        features = forward_trunk(trunk, images, with_attention=True)
        expected = trunk.forward_features(images)
    torch.testing.assert_close(features.pooled, expected[:, 0])
    patches = expected[:, trunk.num_prefix_tokens :]
    torch.testing.assert_close(features.grid.flatten(2).transpose(1, 2), patches)
    assert features.grid.shape[2:] == (height, width)
    weights = softmax_of(attention, lambda: trunk.forward_features(images))
    row = weights[:, :, 0, trunk.num_prefix_tokens :].mean(1)
    assert features.attention is not None
    torch.testing.assert_close(features.attention, row.view(2, height, width))
    assert (features.attention.sum((1, 2)) < 1).all()  # [CLS] attends to itself too


@pytest.mark.parametrize("size", SIZES)
def test_swin_is_timms(randomize: Randomize, size: tuple[int, int]) -> None:
    """Exported weights would give other features in timm; at 224 the map would not be the last 7x7 window's."""
    trunk = build(randomize, SWIN)
    assert isinstance(trunk, SwinTransformer)
    layers: Any = trunk.layers
    images = picture(size)
    with torch.no_grad():
        features = forward_trunk(trunk, images, with_attention=True)
        expected = trunk.forward_features(images)
    torch.testing.assert_close(features.grid, expected.permute(0, 3, 1, 2))
    torch.testing.assert_close(features.pooled, expected.mean((1, 2)))
    assert features.attention is not None and features.attention.shape == (2, size[0] // 32, size[1] // 32)
    if size == (224, 224):
        weights = softmax_of(layers[-1].blocks[-1].attn, lambda: trunk.forward_features(images))
        torch.testing.assert_close(features.attention, weights.mean((1, 2)).view(2, 7, 7))
        torch.testing.assert_close(features.attention.sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_swin_crops_of_96_meet_the_grids_of_the_docstring(randomize: Randomize) -> None:
    """Local crops would be resized or windows reshaped, and the docstring would describe another network."""
    trunk = build(randomize, SWIN)
    grids: list[tuple[int, int]] = []
    for layer in trunk.layers:
        layer.blocks[0].register_forward_pre_hook(
            lambda module, given: grids.append(tuple(given[0].shape[1:3]))
        )
    forward_trunk(trunk, picture((96, 96)))
    assert grids == [(24, 24), (12, 12), (6, 6), (3, 3)]
    assert {block.window_size for layer in trunk.layers for block in layer.blocks} == {(7, 7)}
    assert [layer.blocks[1].shift_size for layer in trunk.layers] == [(3, 3)] * 3 + [(0, 0)]


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 10), (12, 7), (4, 4)])
def test_swin_map_of_shifted_and_padded_windows(
    randomize: Randomize, shift: int, size: tuple[int, int]
) -> None:
    """Received attention would be written to the wrong tokens where windows are shifted or padded."""
    height, width = size
    block = SwinTransformerBlock(
        8, size, num_heads=2, window_size=4, shift_size=shift, always_partition=True, dynamic_mask=True
    )
    randomize(block, shift)
    block.double().eval()
    x = torch.randn(2, height, width, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = softmax_of(block.attn, lambda: block(x))  # windows, row by row, image after image
    down, across = -(-height // 4), -(-width // 4)
    expected = torch.zeros(2, height, width, dtype=torch.float64)
    for image in range(2):
        for i in range(height):
            for j in range(width):  # (i, j) of the shifted map; padding lies below and to the right
                window = image * down * across + (i // 4) * across + j // 4
                key = (i % 4) * 4 + j % 4
                queries = [  # of the window, those that are tokens and no padding
                    query
                    for query in range(16)
                    if i // 4 * 4 + query // 4 < height and j // 4 * 4 + query % 4 < width
                ]
                received = [
                    weights[window, head, query, key].item() for head in range(2) for query in queries
                ]
                expected[image, (i + shift) % height, (j + shift) % width] = sum(received) / len(received)
    with torch.no_grad():
        torch.testing.assert_close(swin_attention_map(block, x), expected)


def test_vit_map_of_a_block(randomize: Randomize) -> None:
    """The map would read heads, channels or the [CLS] query from the wrong axis (plain loops)."""
    trunk = build(randomize, VIT, img_size=32, patch_size=16)
    block = trunk.blocks[0]
    x = torch.randn(1, 1 + 6, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        result = vit_attention_map(block, x, 2, 3)
        qkv = block.attn.qkv(block.norm1(x))[0]  # [7, 3 * 3 * 8]: q, k, v; heads; channels
    expected = [0.0] * 6
    for head in range(3):
        query = qkv[0, head * 8 : head * 8 + 8]
        scores = [
            float(query @ qkv[token, 24 + head * 8 : 24 + head * 8 + 8]) * 8**-0.5 for token in range(7)
        ]
        weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
        expected = [value + float(weight) / 3 for value, weight in zip(expected, weights[1:], strict=True)]
    assert result.flatten().tolist() == pytest.approx(expected, rel=1e-10)


def test_vit_mask_token_enters_before_the_position(randomize: Randomize) -> None:
    """Hidden tokens would lose their position, or [CLS] or visible tokens would change."""
    trunk = build(randomize, VIT, img_size=64)
    seen: list[Tensor] = []
    trunk.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = picture((64, 64))
    mask = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(4)) < 0.4
    token = torch.linspace(-1, 1, 24, dtype=torch.float64)
    with torch.no_grad():
        forward_trunk(trunk, images)
        forward_trunk(trunk, images, mask, token)
    plain, masked = seen
    flat = torch.cat([torch.zeros(2, 1, dtype=torch.bool), mask.flatten(1)], 1)
    assert torch.equal(masked[~flat], plain[~flat])
    position = trunk.pos_embed.expand(2, -1, -1)
    torch.testing.assert_close(masked[flat], token + position[flat])
    assert 0 < mask.sum() < 32


def test_swin_masks_whole_stage_4_tokens(randomize: Randomize) -> None:
    """Parts of a last-stage token would stay visible, and its content leak into what it should restore."""
    trunk = build(randomize, SWIN)
    seen: list[Tensor] = []
    trunk.layers[0].downsample.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = picture((224, 160))
    mask = torch.rand(2, 7, 5, generator=torch.Generator().manual_seed(5)) < 0.3
    token = torch.linspace(-1, 1, 8, dtype=torch.float64)
    with torch.no_grad():
        forward_trunk(trunk, images)
        forward_trunk(trunk, images, mask, token)
    plain, masked = seen
    assert masked.shape == (2, 56, 40, 8)
    hidden = (masked == token).all(-1)
    assert hidden.sum() == 64 * mask.sum()
    units = mask.tolist()
    expected = [[[units[image][i // 8][j // 8] for j in range(40)] for i in range(56)] for image in range(2)]
    assert hidden.tolist() == expected
    assert torch.equal(masked[~hidden], plain[~hidden])


def test_widths_and_strides() -> None:
    """Mask token or decoder would be built for another network."""
    vit = build_trunk(**VIT, img_size=64, patch_size=8)
    swin = build_trunk(**SWIN)
    assert output_stride(vit) == 8
    assert (output_stride(swin), swin.num_features) == (32, 64)


def test_impossible_input_is_refused(randomize: Randomize) -> None:
    """An image or mask that does not fit the grid would hide other tokens than those that were chosen."""
    vit, swin = build(randomize, VIT, img_size=64), build(randomize, SWIN)
    token = torch.zeros(24, dtype=torch.float64)
    whole = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"72x64.*16"):
        forward_trunk(vit, picture((72, 64), 1))
    with pytest.raises(ValueError, match="mask_token"):
        forward_trunk(vit, picture((64, 64), 1), whole)
    for mask in (whole[:, :2], whole.expand(2, -1, -1), torch.ones(1, 8, 8, dtype=torch.bool)):
        with pytest.raises(ValueError, match="tile"):
            forward_trunk(vit, picture((64, 64), 1), mask, token)
    # 72 px: stage 1 has 18 tokens a side, stage 4 three of them after padding; no mask of 8 x 8 units fits
    with pytest.raises(ValueError, match="divisible by the output stride"):
        forward_trunk(swin, picture((72, 72), 1), torch.ones(1, 3, 3, dtype=torch.bool), token[:8])


@pytest.mark.parametrize(
    ("name", "match"),
    [("vit_tinny", "vit_tinny"), ("resnet18", "resnet18.*ViT"), ("vit_medium_patch16_gap_240", r"\[CLS\]")],
)
def test_models_that_mst_cannot_use_are_named(name: str, match: str) -> None:
    """A misspelt or unsuitable timm name would fail deep inside the first forward pass."""
    with pytest.raises(UserError, match=match):
        build_trunk(name)
