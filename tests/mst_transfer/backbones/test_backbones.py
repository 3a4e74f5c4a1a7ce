"""The backbones: taps and norms, strides, windows, freezing, checkpointing. test_backbone_parity.py has the peers."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

import mst_transfer  # noqa: F401, registers
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer, base, swin, vit

SMALL_VIT: dict[str, Any] = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 64}
SMALL_SWIN: dict[str, Any] = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4)}


pytestmark = pytest.mark.usefixtures("one_thread")  # small maps are not worth a second one


def small_vit(**options: Any) -> MSTVisionTransformer:
    shape = {**SMALL_VIT, **options.pop("model_args", {})}
    return MSTVisionTransformer(model=None, model_args=shape, **{"out_indices": (0, 1, 2, 3), **options})


def small_swin(**options: Any) -> MSTSwin:
    return MSTSwin(model_args=SMALL_SWIN, **{"drop_path_rate": 0.0, **options})


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Every parameter from a distribution in which no two entries, and no two tensors, are alike."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("relative_position_bias_table"):
            scale, shift = 1.0, 0.0
        elif parameter.ndim > 1:
            scale, shift = (2.0 / parameter[0].numel()) ** 0.5, 0.0
        else:
            scale, shift = 0.3, 1.0 if name.endswith("weight") else 0.0
        parameter.data = noise * scale + shift


def output_and_gradient(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Outputs, then the images' gradient of a random projection of all of them."""
    images = images.clone().requires_grad_()
    outputs = module(images)
    generator = torch.Generator().manual_seed(7)
    sum((y * torch.randn(y.shape, generator=generator)).mean() for y in outputs).backward()
    assert images.grad is not None
    return [*(y.detach() for y in outputs), images.grad]


def test_vit_taps_and_norms() -> None:
    """`all` would norm one tap only, a pyramid would be built from normed tokens, the wrong blocks, or registers."""
    variant = {"pre_norm": True, "reg_tokens": 2, "img_size": (64, 80)}  # of its native size
    backbone = small_vit(pyramid=False, normed_taps="all", model_args=variant).eval()
    randomize(backbone)
    images = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        x = backbone.trunk.norm_pre(backbone.trunk._pos_embed(backbone.trunk.patch_embed(images)))
        raw = []
        for block in backbone.trunk.blocks:
            x = block(x)
            raw.append(x)
        for y, tokens in zip(backbone(images), raw, strict=True):
            expected = backbone.trunk.norm(tokens)[:, 3:].transpose(1, 2).reshape(1, 48, 4, 5)
            torch.testing.assert_close(y, expected)
        pyramid = small_vit(model_args=variant).eval()
        randomize(pyramid)
        pyramid.trunk.load_state_dict(backbone.trunk.state_dict(), strict=False)
        maps = [tokens[:, 3:].transpose(1, 2).reshape(1, 48, 4, 5) for tokens in raw]
        outputs = pyramid(images)
        torch.testing.assert_close(outputs[2], maps[2])
        torch.testing.assert_close(outputs[3], nn.functional.max_pool2d(maps[3], 2, 2, ceil_mode=True))
        torch.testing.assert_close(outputs[1], pyramid.pyramid[1](maps[1]))
        first = pyramid.pyramid[0]
        twice = first[3](nn.functional.gelu(first[1](first[0](maps[0]))))
        torch.testing.assert_close(outputs[0], twice)


@pytest.mark.parametrize("taps", [(3,), (1, 3), (1, 2, 3)])
def test_vit_pyramid_without_its_finest_scales(taps: tuple[int, ...]) -> None:
    """A detector that reads strides 8 to 32 alone would get other maps, or weights without a gradient."""
    whole, part = small_vit(), small_vit(out_indices=taps)
    plain = small_vit(out_indices=taps, pyramid=False, normed_taps="none")
    randomize(whole)
    assert part.pyramid is not None and whole.pyramid is not None
    steps = whole.pyramid[-len(taps) :]
    part.pyramid.load_state_dict(steps.state_dict())
    for backbone in (part, plain):
        backbone.trunk.load_state_dict(whole.trunk.state_dict())
    images = torch.randn(2, 3, 64, 80)
    outputs = part(images)
    for output, step, tap in zip(outputs, steps, plain(images), strict=True):
        torch.testing.assert_close(output, step(tap))
    sum(output.sum() for output in outputs).backward()
    assert not [name for name, value in part.named_parameters() if value.grad is None]


def test_vit_position_embedding_of_another_grid() -> None:
    """A checkpoint resized on loading and one resized on the fly would differ, or height and width be swapped."""
    square = small_vit(pyramid=False).eval()
    randomize(square)
    native = small_vit(pyramid=False, model_args={"img_size": (80, 112)}).eval()
    state = square.trunk.state_dict()
    grid = state["pos_embed"][:, 1:].reshape(1, 4, 4, 48).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid, size=(5, 7), mode="bicubic", align_corners=False)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], resized.flatten(2).transpose(1, 2)], 1)
    native.trunk.load_state_dict(state)
    images = torch.randn(1, 3, 73, 112)
    for ours, expected in zip(square(images), native(images), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


# every size: shapes, strides, padding

BACKBONES: dict[str, tuple[Any, list[int]]] = {
    "vit": (small_vit, [4, 8, 16, 32]),
    "vit-plain": (lambda **options: small_vit(pyramid=False, **options), [16, 16, 16, 16]),
    "swin": (small_swin, [4, 8, 16, 32]),
}
each_backbone = pytest.mark.parametrize(("build", "strides"), BACKBONES.values(), ids=BACKBONES)


@each_backbone
@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 131), (1, 1), (3, 200), (160, 33)])
def test_any_image_size(build: Any, strides: list[int], height: int, width: int) -> None:
    """An odd image would fail, give other shapes than ceil(side / stride), or be padded left or above."""
    backbone = build().eval()
    randomize(backbone)
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        outputs = backbone(images)
        whole = backbone(base.pad_to_multiple(images, backbone.patch_size))
        padded = nn.functional.pad(
            images, (0, -width % backbone.patch_size, 0, -height % backbone.patch_size)
        )
        assert torch.equal(base.pad_to_multiple(images, backbone.patch_size), padded)
    for y, z, stride in zip(outputs, whole, strides, strict=True):
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        assert y.shape[2:] == (rows, columns)
        assert y.is_contiguous() and y.isfinite().all()
        assert torch.equal(y, z[:, :, :rows, :columns])


@each_backbone
def test_autocast_is_finite_and_close(build: Any, strides: list[int]) -> None:
    """Mixed precision would overflow in the attention mask or in the norms."""
    backbone = build().eval()
    randomize(backbone)
    images = torch.randn(1, 3, 97, 70)
    with torch.no_grad():
        expected = backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            found = backbone(images)
    for y, z in zip(found, expected, strict=True):
        assert y.isfinite().all()
        assert (y.float() - z).square().mean().sqrt() < 0.05 * z.square().mean().sqrt()


# training: every parameter is used, frozen ones are not, checkpointing changes nothing


@pytest.mark.parametrize(
    "build",
    [
        lambda: small_vit(),
        lambda: small_vit(pyramid=False),
        lambda: small_vit(pyramid=False, normed_taps="all"),
        lambda: small_vit(pyramid=False, out_indices=(0, 2)),
        lambda: small_vit(pyramid=False, normed_taps="none", model_args={"global_pool": "avg"}),
        lambda: small_vit(frozen_stages=2),
        lambda: small_swin(),
        lambda: small_swin(out_indices=(1, 2)),
        lambda: small_swin(out_indices=(0,)),
        lambda: small_swin(frozen_stages=2),
    ],
)
def test_no_unused_parameter(build: Any) -> None:
    """DistributedDataParallel would stop at the second step: a trainable parameter took no part in the loss."""
    backbone = build().train()
    randomize(backbone)
    output_and_gradient(backbone, torch.randn(2, 3, 96, 70))
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if name != "pyramid.0.0.bias":  # a batch norm follows: its gradient is zero
            assert parameter.grad is None or parameter.grad.abs().max() > 1e-7, name


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        (-1, ()),
        (0, ("cls_token", "reg_token", "pos_embed", "patch_embed")),
        (2, ("cls_token", "reg_token", "pos_embed", "patch_embed", "blocks.0", "blocks.1")),
        (4, ("",)),
    ],
)
def test_vit_freezes(stages: int, names: tuple[str, ...]) -> None:
    """A probe would train its backbone, or fewer blocks would learn than asked."""
    backbone = small_vit(
        pyramid=False, frozen_stages=stages, model_args={"pos_drop_rate": 0.5, "reg_tokens": 1}
    ).train()
    assert backbone.trunk.pos_drop.training == (stages < 0)
    for name, parameter in backbone.trunk.named_parameters():
        assert parameter.requires_grad == (not (names and name.startswith(names))), name


@pytest.mark.parametrize("build", [small_vit, small_swin])
def test_frozen_weights_stay_and_others_move(build: Any) -> None:
    """Frozen stages would drift, or stochastic depth would still act in them."""
    backbone = build(frozen_stages=2, drop_path_rate=0.5).train()
    randomize(backbone)
    before = {name: value.detach().clone() for name, value in backbone.named_parameters()}
    torch.manual_seed(0)
    output_and_gradient(backbone, torch.randn(8, 3, 64, 64))  # of two images stochastic depth may drop both
    torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=100.0).step()
    for name, value in backbone.named_parameters():
        if name != "pyramid.0.0.bias" and (not value.requires_grad or ".2." in name or "norm3" in name):
            assert torch.equal(value, before[name]) != value.requires_grad, name
    stages = backbone.trunk.blocks if hasattr(backbone.trunk, "blocks") else backbone.trunk.layers
    for index, stage in enumerate(stages):
        modules = [m for m in stage.modules() if type(m).__name__ == "DropPath"]
        assert index == 0 or modules
        assert all(m.training == (index >= 2) for m in modules)


@pytest.mark.parametrize(("build", "module"), [(small_vit, vit), (small_swin, swin)])
def test_gradient_checkpointing(build: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """with_cp would change values or gradients, under stochastic depth too, or would not act."""
    counted = Mock(wraps=module.checkpoint)
    monkeypatch.setattr(module, "checkpoint", counted)
    images = torch.randn(2, 3, 64, 49)
    results, gradients = [], []
    for with_cp in (False, True):
        backbone = build(drop_path_rate=0.3, with_cp=with_cp).train()
        randomize(backbone)
        torch.manual_seed(5)
        results.append(output_and_gradient(backbone, images))
        gradients.append([parameter.grad for parameter in backbone.parameters()])
        assert counted.call_count == with_cp * {vit: 4, swin: 8}[module]
    for first, second in zip(results[0] + gradients[0], results[1] + gradients[1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)


def test_drop_path_rises_with_depth() -> None:
    """Stochastic depth would not act, or in another strength than mmdet's: 0 at the first block, full at the last."""
    for blocks in (
        small_vit(drop_path_rate=0.3).trunk.blocks,
        [block for layer in small_swin(drop_path_rate=0.3).trunk.layers for block in layer.blocks],
    ):
        rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
        assert rates == pytest.approx(torch.linspace(0, 0.3, len(blocks)).tolist())
        assert [getattr(block.drop_path2, "drop_prob", 0.0) for block in blocks] == rates
    cut = small_vit(drop_path_rate=0.3, pyramid=False, out_indices=(1,)).trunk.blocks
    assert cut[1].drop_path1.drop_prob == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small_vit(out_indices=(0, 1, 2, 4)), r"\(0, 1, 2, 4\) do not fit 4 blocks"),
        (lambda: small_vit(out_indices=(-1, 0, 1, 2)), r"\(-1, 0, 1, 2\) do not fit"),
        (
            lambda: small_vit(out_indices=range(5), model_args={"depth": 5}),
            "at most four scales",
        ),
        (lambda: small_vit(out_indices=(3, 2, 1, 0)), "must rise"),
        (lambda: small_vit(normed_taps="first"), "got 'first'"),
        (lambda: small_swin(out_indices=(4,)), r"\(4,\) do not fit 4 stages"),
    ],
)
def test_impossible_arguments(build: Any, message: str) -> None:
    """A wrong config would fail later, inside a neck, without naming the argument."""
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("more", [{}, {"no_embed_class": True}, {"pos_embed": "none"}, {"reg_tokens": 2}])
def test_embedding_is_timms(more: dict[str, Any]) -> None:
    """Tokens would miss a position, take [CLS]'s, or skip the dropout that follows."""
    backbone = small_vit(model_args={**more, "pos_drop_rate": 0.5})
    randomize(backbone)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    embedded: list[Tensor] = []
    backbone.trunk.blocks[0].register_forward_pre_hook(lambda _, inputs: embedded.append(inputs[0].detach()))
    for call in (backbone, backbone.trunk.forward_features):
        torch.manual_seed(3)  # the same tokens are dropped
        call(images)
    torch.testing.assert_close(embedded[0], embedded[1], rtol=0, atol=1e-6)
    assert (0.4 < (embedded[0] == 0).float().mean() < 0.6) == (more != {"pos_embed": "none"})
