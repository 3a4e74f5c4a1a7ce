"""Layer-wise learning-rate decay for ViT backbones."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

_TRUNK = "backbone.trunk."
_EMBEDDINGS = ("patch_embed.", "cls_token", "pos_embed", "reg_token", "norm_pre.")
_NO_DECAY = ("pos_embed", "cls_token", "reg_token")


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

    Biases, 1-D parameters, position embeddings and [CLS] have no weight decay.

    ``paramwise_cfg`` takes ``layer_decay_rate`` and ``num_layers`` (blocks of the backbone).
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **kwargs: Any) -> None:
        """Fill ``params`` with one group per (layer, decay)."""
        rate, layers = self.paramwise_cfg["layer_decay_rate"], self.paramwise_cfg["num_layers"]
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            layer = layer_of(name, layers)
            decays = parameter.ndim > 1 and not name.endswith(".bias") and not name.endswith(_NO_DECAY)
            scale = rate ** (layers + 1 - layer)
            group = groups.setdefault(
                (layer, decays),
                {
                    "params": [],
                    "lr": self.base_lr * scale,
                    "lr_scale": scale,
                    "weight_decay": self.base_wd if decays else 0.0,
                },
            )
            group["params"].append(parameter)
        print_log(
            f"{len({layer for layer, _ in groups})} learning rates by layer decay {rate}", logger="current"
        )
        params.extend(groups.values())
