"""Layer decay and Swin's no-decay keys. test_learning_rates.py has the shipped models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

import mst_transfer  # noqa: F401, registers
from mst_pretrain.runtime.errors import UserError
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer

SWIN_KEYS = {  # as configs/coco/mask_rcnn_mst.py
    "absolute_pos_embed": {"decay_mult": 0.0},
    "relative_position_bias_table": {"decay_mult": 0.0},
    "norm": {"decay_mult": 0.0},
}


class Detector(BaseModule):
    """A backbone and one more layer."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(8, 4, 1)


def vit(depth: int = 12, **options: Any) -> Detector:
    shape = {"embed_dim": 8, "num_heads": 2, "depth": depth, "img_size": 32}
    return Detector(MSTVisionTransformer(model=None, model_args=shape, **options))


def groups(model: nn.Module, constructor: str | None = None, **paramwise: Any) -> dict[str, dict[str, Any]]:
    """Optimizer group of every parameter by name; each parameter in exactly one."""
    cfg: dict[str, Any] = {
        "optimizer": {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05},
        "paramwise_cfg": paramwise,
    }
    if constructor:
        cfg["constructor"] = constructor
    param_groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)]: group for group in param_groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in param_groups) == len(found)
    return found


def decayed(model: nn.Module, **paramwise: Any) -> dict[str, dict[str, Any]]:
    return groups(model, "LayerDecayOptimWrapperConstructor", **paramwise)


def test_fourteen_learning_rates() -> None:
    """Blocks would learn at the rate of another depth: 0.8 ** (13 - layer), written out [code: iBOT]."""
    found = decayed(vit(), layer_decay_rate=0.8, num_layers=12)
    expected = {
        "backbone.trunk.cls_token": 0.8**13,
        "backbone.trunk.pos_embed": 0.8**13,
        "backbone.trunk.patch_embed.proj.weight": 0.8**13,
        "backbone.trunk.patch_embed.proj.bias": 0.8**13,
        "backbone.trunk.blocks.0.attn.qkv.weight": 0.8**12,
        "backbone.trunk.blocks.1.norm1.bias": 0.8**11,
        "backbone.trunk.blocks.10.mlp.fc1.weight": 0.8**2,
        "backbone.trunk.blocks.11.mlp.fc2.bias": 0.8,
        "backbone.pyramid.0.0.weight": 1.0,
        "backbone.pyramid.1.bias": 1.0,
        "head.weight": 1.0,
    }
    for name, scale in expected.items():
        assert found[name]["lr"] == pytest.approx(1e-4 * scale, rel=1e-12), name
    assert sorted({group["lr"] for group in found.values()}) == pytest.approx(
        [1e-4 * 0.8**i for i in range(13, -1, -1)]
    )


def test_every_parameter_of_a_block_has_its_rate() -> None:
    """A part of a block (layer scale, norm) would fall into the head's group."""
    found = decayed(vit(), layer_decay_rate=0.5, num_layers=12)
    for name, group in found.items():
        if name.startswith("backbone.trunk.blocks."):
            assert group["lr"] == pytest.approx(1e-4 * 0.5 ** (12 - int(name.split(".")[3]))), name


def test_final_norm_is_the_top_layer() -> None:
    """The last norm of the trunk would learn like the embeddings."""
    found = decayed(vit(pyramid=False), layer_decay_rate=0.8, num_layers=12)
    assert found["backbone.trunk.norm.weight"]["lr"] == pytest.approx(1e-4)


def test_what_is_not_decayed() -> None:
    """Norms, biases, position embeddings or [CLS] would be pulled to zero, or a matrix would not."""
    model = vit()
    for name, group in decayed(model, layer_decay_rate=0.8, num_layers=12).items():
        free = (
            name.endswith(("bias", "pos_embed", "cls_token"))
            or ".norm" in name
            or name == "backbone.pyramid.0.1.weight"
        )
        assert group["weight_decay"] == (0.0 if free else 0.05), name


def test_frozen_parameters_have_no_group() -> None:
    """Weight decay would move frozen weights."""
    model = vit(frozen_stages=3)
    found = decayed(model, layer_decay_rate=0.8, num_layers=12)
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "backbone.trunk.blocks.2.norm1.weight" not in found and "backbone.trunk.pos_embed" not in found


def test_cut_blocks_keep_their_layer() -> None:
    """With an early last tap the rates would move up, though the checkpoint's blocks are the same."""
    found = decayed(vit(out_indices=(0, 1, 2, 3)), layer_decay_rate=0.8, num_layers=12)
    assert found["backbone.trunk.blocks.3.mlp.fc1.weight"]["lr"] == pytest.approx(1e-4 * 0.8**9)


def test_rate_reaches_the_weights() -> None:
    """The scale would stand in the group and not act: with SGD and gradient 1 the step is -lr."""
    model = vit(depth=4, out_indices=(0, 1, 2, 3))
    cfg = {
        "optimizer": {"type": "SGD", "lr": 1.0},
        "constructor": "LayerDecayOptimWrapperConstructor",
        "paramwise_cfg": {"layer_decay_rate": 0.5, "num_layers": 4},
    }
    optimizer = build_optim_wrapper(model, cfg).optimizer
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    def step(name: str) -> Tensor:
        return (before[name] - dict(model.named_parameters())[name].detach()).flatten()[0]

    assert step("backbone.trunk.cls_token").item() == pytest.approx(0.5**5)
    assert step("backbone.trunk.blocks.2.mlp.fc1.weight").item() == pytest.approx(0.5**2, rel=1e-4)
    assert step("head.weight").item() == pytest.approx(1.0, rel=1e-4)


def test_another_backbone_is_refused() -> None:
    """Layer decay on Swin would silently train every layer at the full rate."""
    with pytest.raises(UserError, match="MSTVisionTransformer"):
        decayed(Detector(nn.Conv2d(3, 8, 1)), layer_decay_rate=0.8, num_layers=12)


@pytest.mark.parametrize("layers", [6, 11, 13, 24])
@pytest.mark.parametrize("taps", [(3, 5, 7, 11), (0, 1, 2, 3)])
def test_another_number_of_layers_is_refused(layers: int, taps: tuple[int, ...]) -> None:
    """Deep blocks would learn faster than the head, or the whole backbone more slowly than its config says."""
    with pytest.raises(UserError, match=rf"has 12 blocks and .*num_layers is {layers}. Set it to 12"):
        decayed(vit(out_indices=taps), layer_decay_rate=0.8, num_layers=layers)


@pytest.mark.parametrize(
    "paramwise",
    [{}, {"layer_decay_rate": 0.8}, {"layer_decay_rate": 0.8, "num_layers": 12, "custom_keys": {}}],
)
def test_options_missing_or_unknown(paramwise: dict[str, Any]) -> None:
    """Without options MMEngine skips the constructor's rule; an option it does not know would be ignored."""
    with pytest.raises(UserError, match=r"layer_decay_rate=\.\.\., num_layers=\.\.\."):
        decayed(vit(), **paramwise)


def test_swin_custom_keys() -> None:
    """MMEngine's keys of the Swin recipe would miss MSTSwin's names: bias tables or norms would be decayed."""
    swin = MSTSwin(model_args={"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 1, 2, 2)})
    model = Detector(swin)
    norms = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    tables = {name for name, _ in model.named_parameters() if name.endswith("relative_position_bias_table")}
    # patch embedding, 2 per block, 3 mergings, 4 outputs; one table per block
    assert (len(norms), len(tables)) == (2 * (1 + 16 + 3 + 4), 8)
    found = groups(model, custom_keys=SWIN_KEYS)
    for name, group in found.items():
        assert group["weight_decay"] == (0.0 if name in norms | tables else 0.05), name
        assert group["lr"] == 1e-4
