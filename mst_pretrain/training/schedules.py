"""Everything that changes during training, as a pure function of the iteration [code: DINO]."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..runtime.errors import InvalidValue


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up from 0 to ``base``, then half a cosine to ``final``.

    Args:
        base: Value after the warm-up.
        final: Value approached at the end; reached to within one step.
        total: Iterations of the whole run.
        warmup: Iterations of the warm-up; its first has the value 0, its last one already ``base``.
    """

    base: float
    final: float
    total: int
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.total < 1 or not 0 <= self.warmup <= self.total:
            raise InvalidValue(
                f"a schedule needs 0 <= warmup <= total >= 1, got {self.warmup} and {self.total}"
            )

    def __call__(self, iteration: int) -> float:
        """Value at an iteration, 0 <= iteration < total."""
        if iteration < self.warmup:
            return _linear(0.0, self.base, iteration, self.warmup)
        progress = (iteration - self.warmup) / max(self.total - self.warmup, 1)
        return self.final + 0.5 * (self.base - self.final) * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class WarmupThenConstant:
    """Steps from ``start`` to ``final``, one an epoch, then constant: the teacher temperature [code: DINO].

    Epoch e of the warm-up has element e of ``numpy.linspace(start, final, warmup)``: the first has ``start``, the last
    ``final``, and a warm-up of one epoch is an epoch at ``start``.

    Args:
        start: Value of the first epoch when there is a warm-up.
        final: Value of the last epoch of the warm-up and of all later ones.
        warmup: Epochs of the warm-up.
        per_epoch: Iterations of an epoch.
    """

    start: float
    final: float
    warmup: int
    per_epoch: int

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.final > 0):
            raise InvalidValue(f"teacher_temperature must be positive, got {self.start} to {self.final}")

    def __call__(self, iteration: int) -> float:
        """Value at an iteration >= 0."""
        epoch = iteration // self.per_epoch
        return _linear(self.start, self.final, epoch, self.warmup) if epoch < self.warmup else self.final


def _linear(start: float, stop: float, index: int, count: int) -> float:
    """Element ``index`` of ``numpy.linspace(start, stop, count)``."""
    return start if count == 1 else start + (stop - start) * index / (count - 1)
