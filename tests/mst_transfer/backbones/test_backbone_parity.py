"""MSTSwin beside mmdet's SwinTransformer, MSTVisionTransformer beside mmseg's, on the same drawn weights.

Outputs, the gradient of the images and the gradient of every parameter, float32, relative to each tensor's largest
value. Both ViTs resize position embeddings to the explicit grid with bicubic interpolation, align_corners=False and
no antialiasing; timm's own rule (antialiased) differs by more than the tolerance, which one test shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

import mst_transfer  # noqa: F401, installs the operators that mmdet imports
from mst_pretrain.runtime.errors import UserError
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer

TOLERANCE = 1e-4  # relative
SMALL_SWIN: dict[str, Any] = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4)}
TINY_SWIN: dict[str, Any] = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
SMALL_VIT: dict[str, Any] = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 64}
Tensors = dict[str, Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")  # small maps are not worth a second one


def swin(**model_args: Any) -> MSTSwin:
    """Swin-T unless the shape is given."""
    return MSTSwin(model_args=model_args, drop_path_rate=0.0)


def vit(img_size: Any, width: int, depth: int, heads: int, **options: Any) -> MSTVisionTransformer:
    """Patches of 16, four taps (or as many as blocks), all on stride 16."""
    shape = {"img_size": img_size, "embed_dim": width, "depth": depth, "num_heads": heads}
    taps = tuple(sorted({depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)} - {-1}))
    return MSTVisionTransformer(model=None, model_args=shape, out_indices=taps, pyramid=False, **options)


def randomize(module: nn.Module, seed: int) -> None:
    """Every parameter, norms, biases, bias tables and positions included, from a normal distribution of its own."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("relative_position_bias_table", "pos_embed", "cls_token")):
            scale, shift = 1.0, 0.0
        elif parameter.ndim > 1:
            scale, shift = (2.0 / parameter[0].numel()) ** 0.5, 0.0
        else:
            scale, shift = 0.3, 1.0 if name.endswith("weight") else 0.0
        parameter.data = noise * scale + shift


def swin_name(name: str) -> str:
    """mmdet's name of an MSTSwin parameter: there the merging closes a stage, here it opens the next."""
    name = name.removeprefix("trunk.")
    head, *rest = name.split(".")
    if head == "patch_embed":
        return name.replace("proj.", "projection.")
    if head != "layers":
        return name
    stage, tail = int(rest[0]), ".".join(rest[1:])
    if tail.startswith("downsample."):
        return f"stages.{stage - 1}.{tail}"
    tail = tail.replace("attn.", "attn.w_msa.")
    return f"stages.{stage}.{tail.replace('mlp.fc1', 'ffn.layers.0.0').replace('mlp.fc2', 'ffn.layers.1')}"


def as_mmdet(tensors: Tensors) -> Tensors:
    """Weights, or gradients, of an MSTSwin as mmdet's.

    timm merges (column, row, channel), nn.Unfold (channel, row, column).
    """
    renamed = {}
    for name, tensor in tensors.items():
        if "downsample" in name:
            *rest, merged = tensor.shape
            tensor = tensor.view(*rest, 2, 2, merged // 4).transpose(-1, -3).reshape(*rest, merged)
        renamed[swin_name(name)] = tensor
    return renamed


def as_mmseg(tensors: Tensors) -> Tensors:
    """Weights, or gradients, of an MSTVisionTransformer as mmseg's."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("trunk.")
        for ours, theirs in (
            ("proj.", "projection.") if name.startswith("patch") else ("attn.proj.", "attn.attn.out_proj."),
            ("attn.qkv.", "attn.attn.in_proj_"),
            ("mlp.fc1", "ffn.layers.0.0"),
            ("mlp.fc2", "ffn.layers.1"),
            ("norm", "ln1") if name.startswith("norm") else ("norm", "ln"),
            ("blocks.", "layers."),
        ):
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


def weights_of(backbone: nn.Module) -> Tensors:
    return {name: parameter.detach() for name, parameter in backbone.named_parameters()}


def mmdet_swin(backbone: MSTSwin, **options: Any) -> nn.Module:
    """mmdet's SwinTransformer with the weights of ``backbone``."""
    import mmdet.models

    stages = backbone.trunk.layers
    peer = mmdet.models.SwinTransformer(
        embed_dims=backbone.trunk.embed_dim,
        depths=[len(stage.blocks) for stage in stages],
        num_heads=[stage.blocks[0].attn.num_heads for stage in stages],
        **{"drop_path_rate": 0.0, **options},
    )
    loaded = peer.load_state_dict(as_mmdet(weights_of(backbone)), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.endswith("relative_position_index") for key in loaded.missing_keys)
    return peer


def mmseg_vit(backbone: MSTVisionTransformer, **options: Any) -> nn.Module:
    """mmseg's VisionTransformer with the weights of ``backbone``."""
    import mmseg.models

    trunk = backbone.trunk
    peer = mmseg.models.VisionTransformer(
        img_size=trunk.patch_embed.img_size,
        embed_dims=trunk.embed_dim,
        num_layers=len(trunk.blocks),
        num_heads=trunk.blocks[0].attn.num_heads,
        out_indices=backbone.out_indices,
        qkv_bias=True,
        patch_bias=True,
        norm_cfg={"type": "LN", "eps": 1e-6},
        **{"final_norm": True, **options},
    )
    peer.load_state_dict(as_mmseg(weights_of(backbone)), strict=True)
    return peer


def values_and_gradients(module: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensors]:
    """Outputs and the images' gradient of a random projection of all outputs; gradients of the parameters by name."""
    images = images.clone().requires_grad_()
    outputs = module(images)
    generator = torch.Generator().manual_seed(7)
    sum((y * torch.randn(y.shape, generator=generator)).sum() / y.shape[1] for y in outputs).backward()
    assert images.grad is not None
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return [*(y.detach() for y in outputs), images.grad], gradients  # type: ignore[return-value]


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over largest value."""
    assert found.shape == expected.shape
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def largest_deviation(ours: nn.Module, theirs: nn.Module, rename: Any, images: Tensor) -> dict[str, float]:
    """Relative deviation of every output, of the images' gradient, and of every parameter's gradient."""
    found, found_gradients = values_and_gradients(ours.eval(), images)
    theirs.eval()  # mmdet's returns None
    expected, expected_gradients = values_and_gradients(theirs, images)
    deviations = {f"value {i}": relative(a, b) for i, (a, b) in enumerate(zip(found, expected, strict=True))}
    renamed = rename(found_gradients)
    assert set(renamed) == set(expected_gradients)
    return deviations | {name: relative(renamed[name], expected_gradients[name]) for name in renamed}


def assert_small(deviations: dict[str, float], count: int) -> None:
    """``pytest -rP`` shows the largest."""
    worst = max(deviations, key=lambda name: deviations[name])
    print(f"{count} tensors, largest relative deviation {deviations[worst]:.1e} ({worst})")
    assert len(deviations) == count and deviations[worst] < TOLERANCE, (worst, deviations[worst])


@pytest.mark.parametrize(
    ("shape", "images", "height", "width"),
    [
        pytest.param({}, 1, 224, 224, id="swin-t-224x224"),
        pytest.param({}, 1, 97, 131, id="swin-t-97x131"),
        pytest.param({**TINY_SWIN, "embed_dim": 16}, 1, 800, 1333, id="small-800x1333"),
        pytest.param(SMALL_SWIN, 2, 170, 113, id="small-170x113"),
        pytest.param(SMALL_SWIN, 2, 7, 300, id="small-7x300"),
        pytest.param(SMALL_SWIN, 2, 3, 2, id="small-3x2"),
    ],
)
def test_swin_equals_mmdet(shape: dict[str, Any], images: int, height: int, width: int) -> None:
    """A Swin fine-tuned here would not be the network of the published results, or would learn something else."""
    backbone = swin(**shape)
    randomize(backbone, seed=height)
    batch = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(width))
    deviations = largest_deviation(backbone, mmdet_swin(backbone), as_mmdet, batch)
    assert_small(deviations, 5 + len(list(backbone.parameters())))


@pytest.mark.parametrize(
    ("shape", "images", "height", "width"),
    [
        pytest.param((224, 384, 12, 6), 1, 224, 224, id="deit-s-224x224"),
        pytest.param((224, 384, 12, 6), 1, 97, 131, id="deit-s-97x131"),
        pytest.param((224, 32, 2, 2), 1, 800, 1333, id="small-800x1333"),
        pytest.param((64, 48, 4, 3), 2, 64, 64, id="small-native"),
        pytest.param((64, 48, 4, 3), 2, 61, 50, id="small-padded"),
        pytest.param((64, 48, 4, 3), 2, 160, 33, id="small-larger-and-smaller"),
        pytest.param(((96, 64), 48, 4, 3), 2, 80, 96, id="small-upright-native"),
        pytest.param(((96, 64), 48, 4, 3), 2, 1, 1, id="small-one-pixel"),
    ],
)
def test_vit_equals_mmseg(shape: tuple[Any, int, int, int], images: int, height: int, width: int) -> None:
    """SETR would read other features than mmseg's ViT, above all where position embeddings are resized."""
    backbone = vit(*shape)
    randomize(backbone, seed=height)
    batch = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(width))
    deviations = largest_deviation(backbone, mmseg_vit(backbone), as_mmseg, batch)
    count = len(backbone.out_indices) + 1 + len(list(backbone.parameters()))
    assert_small(deviations, count)


def test_vit_without_final_norm_equals_mmseg() -> None:
    """Taps for a pyramid (iBOT's detection) would pass a norm that mmseg's final_norm=False leaves out."""
    backbone = vit(64, 48, 4, 3, normed_taps="none")
    randomize(backbone, seed=0)
    batch = torch.randn(2, 3, 61, 90, generator=torch.Generator().manual_seed(0))
    deviations = largest_deviation(backbone, mmseg_vit(backbone, final_norm=False), as_mmseg, batch)
    assert_small(deviations, 5 + len(list(backbone.parameters())))


def test_vit_of_a_turned_grid_is_resized() -> None:
    """6 x 4 positions would be read as 4 x 6. So does mmseg, which compares counts alone: its table is resized here."""
    upright, turned = vit((96, 64), 48, 4, 3), vit((64, 96), 48, 4, 3)
    randomize(upright, seed=0)
    state = upright.state_dict()
    grid = state["trunk.pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (6, 4))
    grid = nn.functional.interpolate(grid, size=(4, 6), mode="bicubic", align_corners=False)
    positions = torch.cat([state["trunk.pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)], 1)
    turned.load_state_dict({**state, "trunk.pos_embed": positions})
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    peer = mmseg_vit(turned)
    peer.eval()
    for found, expected in zip(upright.eval()(images), peer(images), strict=True):
        assert relative(found, expected) < TOLERANCE


def test_tolerance_tells_the_rules_of_resizing_apart() -> None:
    """The tests above would pass with timm's antialiased positions as well, and so prove nothing about resizing."""
    backbone = vit(64, 48, 4, 3).eval()
    randomize(backbone, seed=0)
    images = torch.randn(1, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = backbone(images)
        backbone.trunk.pos_embed = nn.Parameter(resample_abs_pos_embed(backbone.trunk.pos_embed, [6, 5]))
        backbone.trunk.patch_embed.grid_size = (6, 5)
        timms = backbone(images)
    assert all(relative(a, b) > 10 * TOLERANCE for a, b in zip(ours, timms, strict=True))


def test_swin_freezes_what_mmdet_freezes() -> None:
    """frozen_stages would freeze another part than in mmdet (the merging, the output norm), or train it after all."""
    for stages in (-1, 0, 1, 2, 4):
        backbone = MSTSwin(model_args=SMALL_SWIN, frozen_stages=stages)
        peer = mmdet_swin(backbone, frozen_stages=stages)
        for module in (backbone, peer):
            module.train()
        expected = {name for name, parameter in peer.named_parameters() if not parameter.requires_grad}
        found = {swin_name(n) for n, p in backbone.named_parameters() if not p.requires_grad}
        assert found == expected, stages
        for name, parameter in backbone.named_parameters():
            owner = backbone.get_submodule(name.rpartition(".")[0])
            assert owner.training == parameter.requires_grad, name
        for ours, theirs in zip(backbone.trunk.layers, peer.stages, strict=True):
            assert {m.training for m in ours.blocks.modules()} == {
                m.training for m in theirs.blocks.modules()
            }


def test_vit_freezes_what_mmseg_is_told_to() -> None:
    """frozen_stages=2 would not be mmseg's frozen_exclude of all but the first two blocks and the embeddings."""
    backbone = vit(64, 48, 4, 3, frozen_stages=2).train()
    peer = mmseg_vit(backbone, frozen_exclude=["layers.2", "layers.3", "ln1"])
    expected = {
        name
        for name, parameter in peer.named_parameters()
        if not parameter.requires_grad
        or name.startswith(("layers.0", "layers.1"))  # their ln1 is excluded too
    }
    found = set(as_mmseg({n: p for n, p in backbone.named_parameters() if not p.requires_grad}))
    assert found == expected and len(found) == 2 + 2 + 2 * 12


# each source tensor


@pytest.mark.parametrize(
    ("build", "source", "images"),
    [
        pytest.param(
            lambda init: vit(64, 48, 2, 3, init_cfg=init),
            lambda: timm.models.VisionTransformer(num_classes=0, **{**SMALL_VIT, "depth": 2}),
            (1, 3, 64, 80),
            id="vit",
        ),
        pytest.param(
            lambda init: MSTSwin(model_args=TINY_SWIN, drop_path_rate=0.0, init_cfg=init),
            lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **TINY_SWIN),
            (1, 3, 40, 50),
            id="swin",
        ),
    ],
)
def test_every_source_tensor_counts(build: Any, source: Any, images: tuple[int, ...], tmp_path: Path) -> None:
    """A tensor of the checkpoint could be lost or scrambled, and the features would be the same."""
    trunk = source()
    randomize(trunk, seed=1)
    batch = torch.randn(images, generator=torch.Generator().manual_seed(2))
    file = tmp_path / "weights.pth"
    backbone = build({"type": "Pretrained", "checkpoint": str(file)}).eval()

    def features(state: Tensors) -> list[Tensor]:
        torch.save(state, file)
        backbone._is_init = False
        backbone.init_weights()
        with torch.no_grad():
            return list(backbone(batch))

    state = {key: value.clone() for key, value in trunk.state_dict().items()}
    expected = features(state)
    assert all(torch.equal(a, b) for a, b in zip(features(state), expected, strict=True))
    unused = {"norm.weight", "norm.bias"} if "layers.0.blocks.0.norm1.weight" in state else set()
    for key, value in state.items():
        if key in unused:
            continue
        permuted = value.flatten()[torch.randperm(value.numel(), generator=torch.Generator().manual_seed(3))]
        for changed in (torch.zeros_like(value), permuted.view_as(value)):
            found = features({**state, key: changed})
            assert max(map(relative, found, expected)) > 10 * TOLERANCE, key
        with pytest.raises(UserError, match=f"1 weights missing.*{key}"):
            features({name: tensor for name, tensor in state.items() if name != key})
