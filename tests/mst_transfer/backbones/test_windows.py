"""Windowed attention of the plain ViT against loops over windows and heads, and against the block itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor

import mst_transfer  # noqa: F401, registers
from mst_transfer.backbones import MSTVisionTransformer
from mst_transfer.backbones.windows import run_in_windows, windowed_attention

WIDTH, HEADS = 12, 3


def small_vit(window_size: int | None, depth: int = 4, **options: Any) -> MSTVisionTransformer:
    shape = {
        "embed_dim": WIDTH,
        "depth": depth,
        "num_heads": HEADS,
        "img_size": 64,
        **options.pop("shape", {}),
    }
    taps = {"out_indices": (depth - 1,), "pyramid": False, **options}
    torch.manual_seed(0)
    return MSTVisionTransformer(model=None, model_args=shape, window_size=window_size, **taps)


def random_block(drop_path: float = 0.0) -> Block:
    """Every parameter drawn; layer scale included, so that its place counts."""
    block = Block(WIDTH, HEADS, qkv_bias=True, init_values=1.0, drop_path=drop_path)
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1)
    return block.double()


def random_tokens(batch: int, prefix: int, patches: int) -> Tensor:
    generator = torch.Generator().manual_seed(patches)
    return torch.randn(batch, prefix + patches, WIDTH, generator=generator, dtype=torch.float64)


def plain_attention(attn: Any, tokens: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) v per head, for the [L, D] tokens of one window."""
    heads = []
    for head in range(HEADS):
        size = WIDTH // HEADS
        rows = [slice(part * WIDTH + head * size, part * WIDTH + (head + 1) * size) for part in range(3)]
        query, key, value = (tokens @ attn.qkv.weight[row].T + attn.qkv.bias[row] for row in rows)
        heads.append((query @ key.T / size**0.5).softmax(-1) @ value)
    return torch.cat(heads, 1) @ attn.proj.weight.T + attn.proj.bias


def plain_windows(attn: Any, x: Tensor, height: int, width: int, window: int) -> Tensor:
    """One image and one window after the other; [CLS] and registers: mean weighted by a window's patches."""
    outputs = torch.zeros_like(x)
    prefix = x.shape[1] - height * width
    for image in range(len(x)):
        for top in range(0, height, window):
            for left in range(0, width, window):
                inside = [
                    prefix + row * width + column
                    for row in range(top, min(top + window, height))
                    for column in range(left, min(left + window, width))
                ]
                y = plain_attention(attn, x[image, [*range(prefix), *inside]])
                outputs[image, inside] += y[prefix:]
                outputs[image, :prefix] += y[:prefix] * (len(inside) / (height * width))
    return outputs


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize(
    ("height", "width", "window"), [(6, 4, 2), (5, 7, 3), (2, 7, 3), (7, 2, 4), (1, 1, 14), (3, 3, 1)]
)
def test_windowed_attention_is_the_loop(prefix: int, height: int, width: int, window: int) -> None:
    """Patches would attend across a border, return to another place, or a narrow window be filled with strangers."""
    attn = random_block().attn
    x, grad = random_tokens(2, prefix, height * width), random_tokens(2, prefix, height * width).flip(1)
    results = []
    for function in (windowed_attention, plain_windows):
        attn.zero_grad()
        given = x.clone().requires_grad_()
        y = function(attn, given, height, width, window)
        y.backward(grad)
        assert given.grad is not None
        results.append([y.detach(), given.grad, *(p.grad.clone() for p in attn.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_one_window_is_the_block(drop_path: float) -> None:
    """A window that covers the image would differ from plain attention: norm, layer scale, stochastic depth, MLP."""
    block = random_block(drop_path).train()
    x = random_tokens(8, 1, 12)
    torch.manual_seed(1)
    expected = block(x)
    for window in (4, 14):
        torch.manual_seed(1)
        found = run_in_windows(block, x, height=3, width=4, window=window)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert (run_in_windows(block.eval(), x, 3, 4, 2) - block(x)).abs().max() > 1e-3


@pytest.mark.parametrize("with_cp", [False, True])
def test_covering_window_is_the_plain_backbone(with_cp: bool) -> None:
    """The option would change small images, through checkpointing or not: values and every gradient."""
    results = []
    for window in (None, 14):
        backbone = small_vit(window, with_cp=window is not None and with_cp, drop_path_rate=0.4).train()
        images = torch.randn(2, 3, 97, 131, generator=torch.Generator().manual_seed(0)).requires_grad_()
        torch.manual_seed(3)
        (y,) = backbone(images)
        (y * torch.linspace(0, 1, y.numel()).view_as(y)).sum().backward()
        results.append([y.detach(), images.grad, *(p.grad for p in backbone.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "options", "expected"),
    [
        (12, {}, {2, 5, 8, 11}),
        (24, {}, {5, 11, 17, 23}),
        (12, {"global_blocks": (0, 7)}, {0, 7}),
        (4, {"global_blocks": ()}, set()),
        (12, {"out_indices": (3,)}, {2}),  # later blocks are not built
    ],
)
def test_global_blocks(depth: int, options: dict[str, Any], expected: set[int]) -> None:
    """Other blocks than ViTDet's, or than asked for, would see the whole image."""
    backbone = small_vit(2, depth, **options).eval()
    called: list[int] = []
    for index, block in enumerate(backbone.trunk.blocks):
        # a global block hands all tokens to its attention, a windowed one four patches and [CLS]
        block.attn.register_forward_pre_hook(
            lambda module, inputs, index=index: called.append(index) if inputs[0].shape[1] == 17 else None
        )
    with torch.no_grad():
        backbone(torch.randn(1, 3, 64, 64))
    assert set(called) == expected


def test_a_window_does_not_see_another() -> None:
    """Attention would reach beyond its window, or no patch of its own window."""
    backbone = small_vit(2, depth=1, global_blocks=()).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[:, :, :16, :16] += 1  # the first patch of a 4 x 4 grid
    with torch.no_grad():
        difference = (backbone(images)[0] - backbone(changed)[0]).abs().amax((0, 1))
    assert (difference[:2, :2] > 0).all()
    assert difference[2:].max() == 0 and difference[:, 2:].max() == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small_vit(0), "must be positive or None, got 0"),
        (lambda: small_vit(None, global_blocks=(1,)), "need a window_size"),
        (lambda: small_vit(2, global_blocks=(1, 4)), r"\(1, 4\) do not fit 4 blocks"),
    ],
)
def test_impossible_arguments(build: Any, message: str) -> None:
    """Windows would be ignored, or wrong, without naming the argument."""
    with pytest.raises(ValueError, match=message):
        build()
