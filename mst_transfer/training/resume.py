"""Fine-tuning that continues as if it had never stopped: batches by number, and randomness that is a function of it.

No random state is saved. Seed, iteration and process determine what one training step draws, and with the place in
the batch what the augmentation of one sample draws, so neither workers nor validation between two steps matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader, Sampler

from mst_pretrain.data.decode import read_rgb
from mst_pretrain.data.files import find_fault
from mst_pretrain.data.replacement import Fault, candidates, first_usable, read_again
from mst_pretrain.runtime.errors import UnusableImage
from mst_pretrain.training.randomness import seed_all

TELLING = (".jpg", ".jpeg", ".png", ".webp")


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

    A sample comes with the faults of the samples that it replaces: those whose image or label map is broken.

    Args:
        dataset: With random augmentation.
        seed: The run's.
        rank: Of this process.
    """

    def __init__(self, dataset: Any, seed: int, rank: int) -> None:
        vars(self).update(dataset=dataset, numbers=(seed, rank))

    def __getitem__(self, place: Place) -> tuple[Any, list[Fault]]:
        seed = self.numbers[0]
        wanted = candidates(seed, place.iteration, place.sample, len(self))
        _, sample, faults = first_usable(wanted, partial(self._read, place), self._name)
        return sample, faults

    def is_usable(self, sample: int) -> bool:
        """Whether the files of a sample can be read now."""
        try:
            check_files(files_of(self.dataset, sample), whole=True)
        except UnusableImage:
            return False
        return True

    def _read(self, place: Place, sample: int) -> Any:
        paths = files_of(self.dataset, sample)
        read_again(lambda: check_files(paths))
        seed_all(*self.numbers, place.iteration, 1 + place.place)
        try:
            return self.dataset[sample]
        except Exception:
            read_again(lambda: check_files(paths, whole=True))  # is it the file's fault?
            raise

    def _name(self, sample: int) -> str:
        return str(next(iter(files_of(self.dataset, sample)), sample))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in vars(self):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)  # a hook that changes the pipeline means the data set's


def files_of(dataset: Any, sample: int) -> list[Path]:
    """The image and the label map that a sample is read from, as far as the data set says so and they are files."""
    if not hasattr(dataset, "get_data_info"):
        return []
    info = dataset.get_data_info(sample)
    paths = [info.get(key) for key in ("img_path", "seg_map_path")]
    return [Path(path) for path in paths if isinstance(path, (str, Path)) and "://" not in str(path)]


def check_files(paths: Sequence[Path], whole: bool = False) -> None:
    """Look at the ends of files whose format tells there that they are whole, see :func:`find_encoded_fault`.

    Args:
        paths: Files, of any format.
        whole: Also decode those, and open the others.

    Raises:
        UnusableImage: One is missing, cut off or not an image.
    """
    for path in paths:
        if path.suffix.lower() in TELLING:
            if fault := find_fault(path):
                raise UnusableImage(f"{path} cannot be used ({fault}). Copy it again.")
            if whole:
                read_rgb(path)
        elif whole:
            try:
                path.open("rb").close()
            except OSError as error:
                raise UnusableImage(f"{path} cannot be used ({error.strerror}). Copy it again.") from error


def separated(
    collate: Callable[[list[Any]], Any], samples: list[tuple[Any, list[Fault]]]
) -> tuple[Any, list[Fault]]:
    """A batch of samples, and the faults of all of them."""
    return collate([sample for sample, _ in samples]), [fault for _, faults in samples for fault in faults]


def numbered(loader: DataLoader, seed: int, rank: int, endless: bool = False) -> DataLoader:
    """The same loader with :class:`NumberedBatches` of :class:`SeededSamples`; it yields (batch, faults)."""
    return type(loader)(
        SeededSamples(loader.dataset, seed, rank),  # type: ignore[arg-type]
        batch_sampler=NumberedBatches(loader.batch_sampler, endless),
        num_workers=loader.num_workers,
        collate_fn=partial(separated, loader.collate_fn),
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
