"""Many linear classifiers, one module: every learning rate on every choice of features, one backward for all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ranks import sum_over_ranks

MOMENTUM = 0.9  # [code: DINO]


class HeadBank(nn.Module):
    """H = choices x rates linear classifiers on columns of one feature row; head h = choice * rates + rate.

    Args:
        columns: (start, stop) of each choice of features.
        rates: Learning rate of each head on a choice.
        classes: K.
        seed: Of the weights, drawn from N(0, 0.01) [code: DINO]; heads of one choice start equal. Biases are 0.
    """

    rates: Tensor

    def __init__(
        self, columns: Mapping[str, tuple[int, int]], rates: Sequence[float], classes: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.columns = dict(columns)
        generator = torch.Generator().manual_seed(seed)
        count = len(rates)
        self.weights = nn.ParameterList()
        for start, stop in self.columns.values():
            weight = torch.randn(classes, stop - start, generator=generator) * 0.01
            self.weights.append(nn.Parameter(weight.repeat(count, 1, 1)))
        self.bias = nn.Parameter(torch.zeros(len(self.columns) * count, classes))
        self.register_buffer("rates", torch.tensor(rates).repeat(len(self.columns)))
        self.names = [(choice, rate) for choice in self.columns for rate in rates]

    def forward(self, rows: Tensor) -> Tensor:
        """[B, F] float32 to logits [H, B, K]."""
        # b image, d column, r rate, k class
        logits = [
            torch.einsum("bd,rkd->rbk", rows[:, start:stop], weight)
            for (start, stop), weight in zip(self.columns.values(), self.weights, strict=True)
        ]
        return torch.cat(logits) + self.bias.unsqueeze(1)

    @torch.no_grad()
    def correct(self, rows: Tensor, labels: Tensor, chunk: int = 1024) -> Tensor:
        """How many of [B] labels each head gets right, [H] int64; none where its weights are not finite."""
        total = torch.zeros(len(self.names), dtype=torch.int64, device=rows.device)
        for part, truth in zip(rows.split(chunk), labels.split(chunk), strict=True):
            logits = self(part)
            total += ((logits.argmax(2) == truth) & logits.isfinite().all(2)).sum(1)
        return total


def bank_optimizer(bank: HeadBank) -> torch.optim.Optimizer:
    """SGD without weight decay; :func:`train_step` gives every head its own rate."""
    return torch.optim.SGD(bank.parameters(), lr=1.0, momentum=MOMENTUM, weight_decay=0.0)


def train_step(
    bank: HeadBank, optimizer: torch.optim.Optimizer, rows: Tensor, labels: Tensor, batch: int, factor: float
) -> None:
    """One step of all heads, as one process with the whole batch would do it.

    SGD without weight decay is linear in the gradient: a head whose loss is multiplied by its rate moves as under a
    rate of its own. The schedule's factor is the optimizer's rate, outside the momentum, as in ``torch.optim.SGD``.

    Args:
        bank: The heads, equal in all processes.
        optimizer: From :func:`bank_optimizer`.
        rows: [b, F] float32, this process's part of the batch, maybe empty.
        labels: [b] int64.
        batch: Images of the batch over all processes.
        factor: The schedule, 1 to 0.
    """
    optimizer.zero_grad(set_to_none=False)
    logits = bank(rows).transpose(1, 2)
    losses = F.cross_entropy(logits, labels.expand(len(logits), -1), reduction="none").sum(1) / batch
    (losses * bank.rates).sum().backward()
    sum_over_ranks([parameter.grad for parameter in bank.parameters() if parameter.grad is not None])
    optimizer.param_groups[0]["lr"] = factor
    optimizer.step()


def cosine_factor(done: float, total: float) -> float:
    """From 1 at 0 to 0 at ``total``."""
    return 0.5 * (1 + math.cos(math.pi * done / total))
