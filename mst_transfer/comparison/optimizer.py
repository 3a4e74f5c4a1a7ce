"""The optimiser of a training as a table: learning rate, weight decay and shape of every parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Table = dict[str, dict[str, Any]]


def optimizer_table(model: nn.Module, optimizer: torch.optim.Optimizer) -> Table:
    """What an optimiser does with each parameter it has, by the parameter's name.

    Args:
        model: Owner of the parameters; one that is frozen is no part of the optimiser.
        optimizer: Its groups' ``initial_lr`` counts where a schedule has already changed ``lr``.

    Returns:
        By name ``lr`` (before any schedule), ``weight_decay`` and ``shape``, in the model's order.
    """
    settings = {
        id(parameter): {
            "lr": group.get("initial_lr", group["lr"]),
            "weight_decay": group["weight_decay"],
            "shape": list(parameter.shape),
        }
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: settings[id(p)] for name, p in model.named_parameters() if id(p) in settings}


def table_differences(one: Table, other: Table) -> list[str]:
    """One line per parameter that two tables treat differently, or that only one of them has."""
    lines = []
    for name in {**one, **other}:
        left, right = one.get(name), other.get(name)
        if left is None or right is None:
            lines.append(f"{name}: only in one of the two")
        else:
            lines += [
                f"{name}: {key} {left.get(key)} and {right.get(key)}"
                for key in {**left, **right}
                if left.get(key) != right.get(key)
            ]
    return lines
