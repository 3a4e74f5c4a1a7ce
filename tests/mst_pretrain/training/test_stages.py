"""What is still to come in a run, counted against the loops' own conditions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mst_pretrain.training.stages import validations_left


def loop_of(**values: Any) -> Any:
    return SimpleNamespace(runner=SimpleNamespace(val_loop=object()), **values)


@pytest.mark.parametrize("begin", [1, 3, 4, 7, 99])
@pytest.mark.parametrize("interval", [1, 3, 4, 100])
def test_validations_of_a_loop_of_iterations(begin: int, interval: int) -> None:
    """The remaining time would lack validations, or a finished one be made again at a resume."""
    loop = loop_of(val_interval=interval, val_begin=begin, max_iters=14)
    for step in range(15):
        due = [i for i in range(step + 1, 15) if i >= begin and (i % interval == 0 or i == 14)]
        assert validations_left(loop, step) == len(due), step


@pytest.mark.parametrize("begin", [1, 2, 5])
@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("stop", [20, 13])
def test_validations_of_a_loop_of_epochs(begin: int, interval: int, stop: int) -> None:
    """The same, of a run by epochs, also of one that stops inside an epoch."""
    loop = loop_of(
        val_interval=interval,
        val_begin=begin,
        _max_epochs=5,
        full_iters=20,
        max_iters=stop,
        dataloader=[0] * 4,
    )
    for step in range(stop + 1):
        epochs = [e for e in range(step // 4 + 1, stop // 4 + 1) if e >= begin]
        due = [e for e in epochs if e % interval == 0 or e == 5]
        assert validations_left(loop, step) == len(due), step


def test_a_training_without_validation() -> None:
    """Pretraining would ask for a validation that it does not have."""
    assert validations_left(SimpleNamespace(runner=SimpleNamespace(val_loop=None), val_interval=1), 0) == 0
    assert validations_left(loop_of(max_iters=9), 0) == 0
