"""Learning rate and weight decay of every parameter of the full-size models, beside a table from the recipes.

The table follows the model's modules, not the names that the configs' rules match. Sources as in the configs:
[code: Swin detection, MoBY, Swin segmentation, iBOT, SETR].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

import mst_transfer  # noqa: F401, registers
from mst_pretrain.runtime.config import import_custom_modules, load_config

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = [
    str(path.relative_to(CONFIGS))
    for kind in ("coco", "cityscapes")
    for path in sorted((CONFIGS / kind).glob("*.py"))
]
DEPTH = 12  # of DeiT-S


@dataclass(frozen=True)
class Recipe:
    """Learning rate and decay; per block and per head a factor on the rate."""

    optimizer: type
    lr: float
    weight_decay: float
    layer_decay: float = 1.0
    head_factor: float = 1.0


RECIPES = {
    ("coco", "MSTSwin"): Recipe(torch.optim.AdamW, 1e-4, 0.05),
    ("coco", "MSTVisionTransformer"): Recipe(torch.optim.AdamW, 1e-4, 0.05, layer_decay=0.8),
    ("UPerHead", "MSTSwin"): Recipe(torch.optim.AdamW, 6e-5, 0.01),
    ("UPerHead", "MSTVisionTransformer"): Recipe(torch.optim.AdamW, 3e-5, 0.05, layer_decay=0.9),
    ("SETRUPHead", "MSTVisionTransformer"): Recipe(torch.optim.SGD, 0.01, 0.0, head_factor=10.0),
    ("SETRMLAHead", "MSTVisionTransformer"): Recipe(torch.optim.SGD, 0.002, 0.0, head_factor=10.0),
}
BUILT: dict[str, nn.Module] = {}  # 40k and 80k, 1x and 3x are one model


def model_of(cfg: Config) -> nn.Module:
    """The config's whole model at full size, without memory for its weights."""
    import_custom_modules(cfg)
    cfg.model.backbone.drop_path_rate = (
        0.0  # no parameters, and timm asks for its values, which "meta" has not
    )
    key = f"{cfg.default_scope} {cfg.model}"
    if key not in BUILT:
        with MODELS.switch_scope_and_registry(cfg.default_scope) as registry, torch.device("meta"):
            BUILT[key] = registry.build(cfg.model)
    return BUILT[key]


def recipe_of(cfg: Config) -> Recipe:
    head = "coco" if cfg.default_scope == "mmdet" else cfg.model.decode_head.type
    return RECIPES[head, cfg.model.backbone.type]


def table(model: nn.Module, recipe: Recipe) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) by parameter name."""
    rate = {id(parameter): recipe.lr for parameter in model.parameters()}
    decay = {id(parameter): recipe.weight_decay for parameter in model.parameters()}
    trunk: Any = model.backbone.trunk  # type: ignore[union-attr]
    if recipe.layer_decay != 1.0:  # 14 layers: embeddings, 12 blocks, everything else
        first = [trunk.cls_token, trunk.pos_embed, *trunk.patch_embed.parameters()]
        for layer, parameters in enumerate([first, *(list(block.parameters()) for block in trunk.blocks)]):
            for parameter in parameters:
                rate[id(parameter)] *= recipe.layer_decay ** (DEPTH + 1 - layer)
        for parameter in model.parameters():
            if parameter.ndim == 1 or parameter is trunk.cls_token or parameter is trunk.pos_embed:
                decay[id(parameter)] = 0.0
    else:  # of Swin: norms and bias tables; biases of linear layers, and batch norms of heads, are decayed
        for module in model.modules():
            still = list(module.parameters(recurse=False)) if isinstance(module, nn.LayerNorm) else []
            if hasattr(module, "relative_position_bias_table"):
                still.append(module.relative_position_bias_table)
            decay |= {id(parameter): 0.0 for parameter in still}
    for name, module in model.named_children():
        if name in ("decode_head", "auxiliary_head"):
            for parameter in module.parameters():
                rate[id(parameter)] *= recipe.head_factor
    return {name: (rate[id(p)], decay[id(p)]) for name, p in model.named_parameters()}


@pytest.mark.parametrize("config", SHIPPED)
def test_every_parameter_has_the_recipes_rate_and_decay(config: str) -> None:
    """A part of the model would train at another rate, or be pulled to zero, than in the recipe its config names."""
    cfg = load_config(CONFIGS / config)
    recipe, model = recipe_of(cfg), model_of(cfg)
    optimizer = build_optim_wrapper(model, {**cfg.optim_wrapper, "type": "OptimWrapper"}).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (names[id(parameter)], (group["lr"], group["weight_decay"]))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    expected = table(model, recipe)
    assert type(optimizer) is recipe.optimizer and len(found) == len(expected) > 150
    if recipe.optimizer is torch.optim.SGD:
        assert optimizer.defaults["momentum"] == 0.9
    else:
        assert tuple(optimizer.defaults["betas"]) == (0.9, 0.999)
    for name, values in found:
        assert values == pytest.approx(expected[name], rel=1e-12), name
    rates = len({round(lr / recipe.lr, 12) for lr, _ in expected.values()})
    assert rates == {True: 14, False: 1 + (recipe.head_factor != 1.0)}[recipe.layer_decay != 1.0]


def test_table_of_deit_in_numbers() -> None:
    """The table itself would be wrong: iBOT's 14 rates, written out for one parameter of each kind."""
    cfg = load_config(CONFIGS / "coco/mask_rcnn_mst_deit-s_1x.py")
    expected = table(model_of(cfg), recipe_of(cfg))
    assert expected["backbone.trunk.pos_embed"] == pytest.approx((1e-4 * 0.8**13, 0.0))
    assert expected["backbone.trunk.patch_embed.proj.weight"] == pytest.approx((1e-4 * 0.8**13, 0.05))
    assert expected["backbone.trunk.blocks.0.attn.qkv.weight"] == pytest.approx((1e-4 * 0.8**12, 0.05))
    assert expected["backbone.trunk.blocks.11.mlp.fc2.bias"] == pytest.approx((1e-4 * 0.8, 0.0))
    assert expected["backbone.pyramid.0.1.weight"] == pytest.approx((1e-4, 0.0))
    assert expected["rpn_head.rpn_cls.weight"] == pytest.approx((1e-4, 0.05))


def test_table_of_swin_in_numbers() -> None:
    """The table itself would be wrong: Swin's list, written out for one parameter of each kind."""
    cfg = load_config(CONFIGS / "cityscapes/upernet_mst.py")
    expected = table(model_of(cfg), recipe_of(cfg))
    assert expected["backbone.trunk.layers.2.blocks.5.attn.relative_position_bias_table"] == (6e-5, 0.0)
    assert expected["backbone.trunk.layers.1.downsample.norm.bias"] == (6e-5, 0.0)
    assert expected["backbone.norm3.weight"] == (6e-5, 0.0)
    assert expected["backbone.trunk.layers.0.blocks.0.attn.qkv.bias"] == (6e-5, 0.01)
    assert expected["decode_head.fpn_bottleneck.bn.weight"] == (6e-5, 0.01)
