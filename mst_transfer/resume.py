"""Fine-tuning that continues as if it had never stopped: batches by number, and randomness that is a function of it.

No random state is saved. Seed, iteration and process determine what one training step draws, and with the place in
the batch what the augmentation of one sample draws, so neither workers nor validation between two steps matter.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader, Sampler


class Place(NamedTuple):
    """Where a sample stands in training.

    Attributes:
        iteration: Of its batch.
        place: In its batch.
        sample: Its index in the data set.
    """

    iteration: int
    place: int
    sample: int


def seed_all(*numbers: int) -> None:
    """Set the random states of Python, NumPy and PyTorch to a function of some numbers of 0 or more."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class NumberedBatches(Sampler):
    """The batches of another batch sampler as lists of :class:`Place`, from any one on; no skipped image is read.

    Args:
        batches: A batch sampler.
        endless: Begin again where they end, with the sampler's next epoch.
    """

    def __init__(self, batches: Any, endless: bool) -> None:
        self.batches, self.endless = batches, endless
        self.sampler = getattr(batches, "sampler", None)
        self.iteration = self.skipped = 0

    def __iter__(self) -> Iterator[list[Place]]:
        rest = islice(self._passes(), self.skipped, None)
        for iteration, batch in zip(count(self.iteration), rest, strict=False):
            yield [Place(iteration, place, sample) for place, sample in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.batches)

    def _passes(self) -> Iterator[Iterable[int]]:
        if isinstance(self.sampler, InfiniteSampler):
            self.sampler.indices = self.sampler._indices_of_rank()  # it has one stream for all iterators
        for epoch in count():
            set_epoch = getattr(self.sampler, "set_epoch", None)
            if self.endless and set_epoch:
                set_epoch(epoch)
            yield from self.batches
            if not self.endless:
                return


class SeededSamples:
    """A data set whose sample at a :class:`Place` depends on nothing else; everything but that is the data set's own.

    Args:
        dataset: With random augmentation.
        seed: The run's.
        rank: Of this process.
    """

    def __init__(self, dataset: Any, seed: int, rank: int) -> None:
        vars(self).update(dataset=dataset, numbers=(seed, rank))

    def __getitem__(self, place: Place) -> Any:
        seed_all(*self.numbers, place.iteration, 1 + place.place)
        return self.dataset[place.sample]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in vars(self):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)  # a hook that changes the pipeline means the data set's


def numbered(loader: DataLoader, seed: int, rank: int, endless: bool = False) -> DataLoader:
    """The same loader with :class:`NumberedBatches` of :class:`SeededSamples`."""
    return DataLoader(
        SeededSamples(loader.dataset, seed, rank),  # type: ignore[arg-type]
        batch_sampler=NumberedBatches(loader.batch_sampler, endless),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def start(loader: DataLoader, iteration: int, skipped: int) -> None:
    """The next pass over a :func:`numbered` loader begins after ``skipped`` batches, with that of ``iteration``."""
    batches: Any = loader.batch_sampler
    batches.iteration, batches.skipped = iteration, skipped
