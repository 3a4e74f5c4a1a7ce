"""DINO's projection head [code: DINO]; BN or SyncBN after the hidden linears as an ablation [summary]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from ..runtime.errors import InvalidValue

_NORMS: dict[str, type[nn.Module]] = {"bn": nn.BatchNorm1d, "syncbn": nn.SyncBatchNorm}


class ProjectionHead(nn.Module):
    """Three linear layers (GELU between), L2-normalise, weight-normed bias-free layer of prototypes.

    Args:
        in_dim: Width of the global feature.
        prototypes: Outputs K of the last layer.
        hidden_dim: Width of the two hidden layers.
        bottleneck_dim: Width before the prototypes.
        norm: ``none``, ``bn`` or ``syncbn`` after the two hidden linears.
        norm_last_layer: Keep every prototype at length 1; False lets the lengths train.

    Raises:
        InvalidValue: Unknown ``norm``.
    """

    def __init__(
        self,
        in_dim: int,
        prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm: str = "none",
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        if norm != "none" and norm not in _NORMS:
            raise InvalidValue(f"head norm '{norm}' is unknown; choose none, bn or syncbn")
        layers: list[nn.Module] = []
        for width in (in_dim, hidden_dim):
            layers.append(nn.Linear(width, hidden_dim, bias=norm == "none"))
            layers += [] if norm == "none" else [_NORMS[norm](hidden_dim)]
            layers.append(nn.GELU())
        layers.append(nn.Linear(hidden_dim, bottleneck_dim))
        self.mlp = nn.Sequential(*layers)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.last_layer = parametrizations.weight_norm(nn.Linear(bottleneck_dim, prototypes, bias=False))
        length = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(length)
        length.requires_grad_(not norm_last_layer)

    def forward(self, x: Tensor, full_precision: bool = False) -> Tensor:
        """Global features [B, D] to prototype logits [B, K].

        Args:
            x: The features.
            full_precision: Compute the logits in float32, also in autocast: a teacher's are divided by a temperature
                of 0.04, which makes of bfloat16's rounding errors of several per cent of its targets.
        """
        x = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.float(), dim=-1, eps=1e-6)
            if full_precision:
                return self.last_layer(x)
        return self.last_layer(x)
