"""Layer-wise learning-rate decay for ViT backbones."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mst_pretrain.runtime.errors import UserError

_TRUNK = "backbone.trunk."
_EMBEDDINGS = ("patch_embed.", "cls_token", "dist_token", "pos_embed", "reg_token", "norm_pre.")
_NO_DECAY = ("pos_embed", "cls_token", "dist_token", "reg_token")


def layer_of(name: str, num_layers: int) -> int:
    """Layer of a parameter: embeddings 0, block i is i + 1, everything else ``num_layers + 1``."""
    if name.startswith(_TRUNK):
        rest = name[len(_TRUNK) :]
        if rest.startswith(_EMBEDDINGS):
            return 0
        if rest.startswith("blocks."):
            return int(rest.split(".")[1]) + 1
    return num_layers + 1


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rate x ``layer_decay_rate ** (num_layers + 1 - layer)`` [code: iBOT].

    Biases and 1-D parameters have no weight decay [code: iBOT], nor have position embeddings and [CLS] [ours]: iBOT's
    code means to leave these two out as well, but compares ``pos_embed`` and ``cls_token`` with names that begin with
    ``backbone.``, and so decays them.

    ``paramwise_cfg`` takes ``layer_decay_rate`` and ``num_layers`` (blocks of the backbone before any are cut).

    Raises:
        UserError: An option is missing or unknown, the model has no ViT trunk, or ``num_layers`` is not its depth.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        if set(self.paramwise_cfg) != {"layer_decay_rate", "num_layers"}:
            raise UserError(
                "LayerDecayOptimWrapperConstructor: optim_wrapper.paramwise_cfg must be "
                f"dict(layer_decay_rate=..., num_layers=...), got {dict(self.paramwise_cfg)}."
            )

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **kwargs: Any) -> None:
        """Fill ``params`` with one group per (layer, decay)."""
        rate, layers = self.paramwise_cfg["layer_decay_rate"], self.paramwise_cfg["num_layers"]
        _check_depth(module, layers)
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            layer = layer_of(name, layers)
            decays = parameter.ndim > 1 and not name.endswith(".bias") and not name.endswith(_NO_DECAY)
            scale = rate ** (layers + 1 - layer)
            if (layer, decays) not in groups:
                groups[layer, decays] = {"params": [], "lr": self.base_lr * scale, "lr_scale": scale}
                if not decays:
                    groups[layer, decays]["weight_decay"] = 0.0
            groups[layer, decays]["params"].append(parameter)
        print_log(
            f"{len({layer for layer, _ in groups})} learning rates by layer decay {rate}", logger="current"
        )
        params.extend(groups.values())


def _check_depth(model: Any, num_layers: int) -> None:
    blocks = f"{_TRUNK}blocks."
    if not any(name.startswith(blocks) for name, _ in model.named_parameters()):
        raise UserError(
            f"layer decay: the model has no '{blocks}*'. It is for MSTVisionTransformer; remove "
            "optim_wrapper.constructor and optim_wrapper.paramwise_cfg for another backbone."
        )
    depth = model.backbone.depth
    if depth != num_layers:
        raise UserError(
            f"layer decay: the backbone has {depth} blocks and optim_wrapper.paramwise_cfg.num_layers is {num_layers}. "
            f"Set it to {depth}: a larger number lowers every rate of the backbone."
        )
