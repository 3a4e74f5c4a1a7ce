"""Random numbers of a training step are a function of (seed, rank, iteration): nothing has to be saved or gathered."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_all(*numbers: int) -> None:
    """Set the random states of Python, NumPy and PyTorch, on every device, to a function of some numbers.

    Args:
        numbers: Each 0 or more, e.g. seed, rank and iteration.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
