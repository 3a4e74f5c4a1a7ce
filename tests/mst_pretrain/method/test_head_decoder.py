"""Projection head and decoder: layers, initial values, shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_pretrain.method.decoder import ImageDecoder
from mst_pretrain.method.head import ProjectionHead
from mst_pretrain.method.mst import MST


def batch(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_head_is_dinos(norm: str) -> None:
    """The head would skip a layer, its normalisation or the prototypes' lengths."""
    head = ProjectionHead(6, prototypes=9, hidden_dim=8, bottleneck_dim=4, norm=norm, norm_last_layer=False)
    with torch.no_grad():
        head.last_layer.parametrizations.weight.original0.copy_(torch.linspace(0.5, 2, 9).view(9, 1))
        for layer in head.mlp:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(20)
    x = batch(5, 6)
    layers: list[Any] = [layer for layer in head.mlp if not isinstance(layer, nn.GELU)]
    y = x
    for layer in layers[:-1]:
        if isinstance(layer, nn.Linear):
            y = y @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        else:
            y = (y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()
        if norm == "none" or not isinstance(layer, nn.Linear):
            y = F.gelu(y)
    y = y @ layers[-1].weight.T + layers[-1].bias
    y = y / y.norm(dim=1, keepdim=True)
    direction = head.last_layer.parametrizations.weight.original1
    prototypes = torch.linspace(0.5, 2, 9).view(9, 1) * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x), y @ prototypes.T, rtol=1e-4, atol=1e-5)


def test_head_starts_as_dinos() -> None:
    """Prototypes of unequal length would draw all images to the longest."""
    for fixed in (True, False):
        head = ProjectionHead(64, prototypes=50, hidden_dim=256, bottleneck_dim=32, norm_last_layer=fixed)
        torch.testing.assert_close(head.last_layer.weight.norm(dim=1), torch.ones(50))
        assert head.last_layer.parametrizations.weight.original0.requires_grad == (not fixed)
        assert head.last_layer.bias is None
        linears = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
        assert [tuple(layer.weight.shape) for layer in linears] == [(256, 64), (256, 256), (32, 256)]
        for layer in linears:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1) and not layer.bias.any()
        assert head(batch(3, 64)).norm(dim=1).max() <= 50**0.5


def test_a_teachers_targets_keep_their_precision_under_autocast() -> None:
    """Rounded to bfloat16 and divided by a temperature of 0.04, the targets would be wrong by several per cent."""
    torch.manual_seed(0)
    head = ProjectionHead(32, prototypes=500, hidden_dim=64, bottleneck_dim=16)
    x = batch(8, 32)
    seen: list[Tensor] = []
    head.last_layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = {exact: head(x, full_precision=exact) for exact in (True, False)}
    exact = (seen[0].double() @ head.last_layer.weight.double().T / 0.04).softmax(-1)
    errors = {
        which: ((got.double() / 0.04).softmax(-1) / exact - 1).abs().max() for which, got in logits.items()
    }
    assert logits[True].dtype == torch.float32 and errors[True] < 1e-4 < 1e-2 < errors[False]
    vit = dict(name="vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1)
    model = MST(vit, dict(prototypes=8, hidden_dim=8, bottleneck_dim=4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.forward_teacher(torch.ones(1, 3, 16, 16))[0].dtype == torch.float32


def test_head_normalises_in_float32_under_autocast() -> None:
    """Bottleneck vectors would have bfloat16's lengths, and the loss other logits than in float32."""
    head = ProjectionHead(16, prototypes=8, hidden_dim=16, bottleneck_dim=8)
    seen: list[Tensor] = []
    head.last_layer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.autocast("cpu", torch.bfloat16):
        head(batch(4, 16))
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0].norm(dim=1), torch.ones(4))


def test_unknown_norm_is_named() -> None:
    """A typo in the ablation's config would train without BN."""
    with pytest.raises(ValueError, match="'batchnorm'"):
        ProjectionHead(4, norm="batchnorm")


@pytest.mark.parametrize(("stride", "size"), [(16, (2, 3)), (32, (1, 2)), (8, (3, 3))])
def test_decoder_restores_the_resolution(stride: int, size: tuple[int, int]) -> None:
    """The restored image would have another size than its target, or the wrong number of steps."""
    decoder = ImageDecoder(12, stride, width=32, min_width=8)
    assert decoder(torch.randn(2, 12, *size)).shape == (2, 3, size[0] * stride, size[1] * stride)
    kinds = [type(layer).__name__ for layer in decoder.layers]
    steps = {8: 3, 16: 4, 32: 5}[stride]
    assert kinds == ["Conv2d", *["ConvTranspose2d", "BatchNorm2d", "ReLU"] * steps, "Conv2d"]
    widths = [layer.out_channels for layer in decoder.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert widths == [16, 8, 8, 8, 8][:steps]


@pytest.mark.parametrize(("stride", "steps"), [(14, 3), (12, 3), (1, 0)])
def test_decoder_of_a_stride_between_powers_of_two(stride: int, steps: int) -> None:
    """A patch of 14 would be restored to 8 or 16 pixels and fail in the loss, or be enlarged by a rounded factor."""
    decoder = ImageDecoder(12, stride, width=8)
    assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in decoder.layers) == steps
    for rows, columns in ((16, 16), (7, 7), (3, 5)):
        image = decoder(torch.randn(2, 12, rows, columns))
        assert image.shape == (2, 3, rows * stride, columns * stride)


def test_decoder_of_no_stride_is_refused() -> None:
    """A stride of 0 would end in a traceback of the first step."""
    with pytest.raises(ValueError, match="got 0"):
        ImageDecoder(12, 0)
