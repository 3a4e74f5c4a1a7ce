"""An endless, shuffled stream of samples that can be entered at any position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """Position p of the stream is element ``p mod n`` of the permutation of epoch ``p div n``.

    Ranks take turns (p mod world size), so R ranks with batch B see together what one rank sees with batch R * B.
    Yields (epoch, index) pairs. The stream has no gaps: where n is no multiple of the global batch, the last batch of
    an epoch is filled with the first samples of the next one. None is dropped, and every batch is full.

    Args:
        dataset: Only its length n matters.
        shuffle: False keeps every epoch in order.
        seed: The same on all ranks; None draws one and shares it.

    Attributes:
        position: Samples that all ranks together have used; a stream begins behind them, with any number of ranks.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.position = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.position + self.rank
        epoch = -1
        order: Sequence[int] | np.ndarray = ()
        while True:
            if position // self.size != epoch:
                epoch = position // self.size
                order = self._order(epoch)
            yield epoch, int(order[position % self.size])
            position += self.world_size

    def __len__(self) -> int:
        """Samples of one epoch on this rank."""
        return self.size // self.world_size

    def _order(self, epoch: int) -> Sequence[int] | np.ndarray:
        if not self.shuffle:
            return range(self.size)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.size, generator=generator).numpy()
