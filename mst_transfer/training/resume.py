"""Fine-tuning that continues as if it had never stopped: batches by number, and randomness that is a function of it.

No random state is saved. Seed, iteration and process determine what one training step draws; seed, iteration and the
place in the batch of all processes what the augmentation of one sample draws. So neither workers nor the number of
processes nor a validation between two steps matter to the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, count, cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Sampler

from mst_pretrain.data.broken_images import candidates, encode, first_usable, read_again
from mst_pretrain.data.decode import read_rgb
from mst_pretrain.data.files import find_fault
from mst_pretrain.runtime.errors import UnusableImage, UserError
from mst_pretrain.training.randomness import seed_all

TELLING = (".jpg", ".jpeg", ".png", ".webp")
KEPT = (  # of a loader whose batches become numbered ones
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "prefetch_factor", "persistent_workers"),
)


class Place(NamedTuple):
    """Where a sample stands in training.

    Attributes:
        iteration: Of its batch.
        place: In its batch of all processes.
        sample: Its index in the data set.
    """

    iteration: int
    place: int
    sample: int


class StepBatches(Sampler):
    """The part that this process has in each batch of all processes, as a list of :class:`Place`, from any one on.

    The batches are those that the given batch sampler forms in one process, of all processes' images; each process
    takes its share, one after the other. So which images make up a step, and where each one stands in it, depends on
    the images per step but not on the number of processes. Where the images of an epoch's last batch cannot be shared
    evenly, as many of them as are missing are used twice. No skipped image is read.

    Args:
        batches: A batch sampler of one process, e.g. PyTorch's or mmdet's AspectRatioBatchSampler.
        endless: Begin again where they end, with the sampler's next epoch.

    Attributes:
        group: Images that the batch sampler keeps together, in mmdet's those of one orientation: as many as one
            process took when the run began.

    Raises:
        UserError: There are several processes, and the sampler cannot give the images of all of them.
    """

    def __init__(self, batches: Any, endless: bool) -> None:
        self.rank, self.processes = get_dist_info()
        self.batches, self.endless, self.sampler = batches, endless, batches.sampler
        self.group = batches.batch_size
        self.size = self.group * self.processes
        self.drop_last = getattr(batches, "drop_last", False)
        self.start(0, 0, 0)
        if isinstance(self.sampler, DefaultSampler):
            self.sampler.num_samples = self.sampler.total_size = len(self.sampler.dataset)
        elif not isinstance(self.sampler, InfiniteSampler) and self.processes > 1:
            raise UserError(
                f"train_dataloader.sampler: {type(self.sampler).__name__} cannot give the same steps to any number of "
                "processes. Use DefaultSampler or InfiniteSampler, or train in one process."
            )
        self.sampler.rank, self.sampler.world_size = 0, 1

    def start(self, iteration: int, epoch: int, skipped: int) -> None:
        """The next pass begins ``skipped`` batches into ``epoch``, with the batch of ``iteration``."""
        self.iteration, self.epoch, self.skipped = iteration, epoch, skipped

    def __iter__(self) -> Iterator[list[Place]]:
        numbers = count(self.iteration)
        for iteration, step in zip(numbers, islice(self._steps(), self.skipped, None), strict=False):
            share = -(-len(step) // self.processes)
            samples = islice(cycle(step), share * self.processes)
            places = [Place(iteration, place, sample) for place, sample in enumerate(samples)]
            yield places[self.rank * share : (self.rank + 1) * share]

    def __len__(self) -> int:
        images = len(self.sampler)
        return images // self.size if self.drop_last else -(-images // self.size)

    def _steps(self) -> Iterator[list[int]]:
        """The batches of all processes, from the beginning of the epoch."""
        if isinstance(self.sampler, InfiniteSampler):
            self.sampler.indices = self.sampler._indices_of_rank()  # it has one stream for all iterators
        self.batches.batch_size, self.batches.drop_last = self.group, False
        for epoch in count(self.epoch):
            if set_epoch := getattr(self.sampler, "set_epoch", None):
                set_epoch(epoch)
            images = chain.from_iterable(self.batches)
            while step := list(islice(images, self.size)):
                if len(step) == self.size or not self.drop_last:
                    yield step
            if not self.endless:
                return


class SeededSamples:
    """A data set whose sample at a :class:`Place` depends on nothing else; everything but that is the data set's own.

    A sample has ``faults``, the samples that it replaces: those whose image or label map is broken.

    Args:
        dataset: With random augmentation; a sample is a dictionary.

    Attributes:
        run_seed: The run's seed, known once a checkpoint is loaded; in ``vars``, as all others are the data set's.
    """

    def __init__(self, dataset: Any) -> None:
        vars(self)["dataset"] = dataset

    def __getitem__(self, place: Place) -> dict[str, Any]:
        wanted = candidates(self.run_seed, place.iteration, place.sample, len(self))
        _, sample, faults = first_usable(wanted, partial(self._read, place), self._name)
        return {**sample, "faults": encode(faults)}

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
        seed_all(self.run_seed, 0, place.iteration, 1 + place.place)  # the last is 0 in a training step
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


def numbered(loader: DataLoader, batches: StepBatches) -> DataLoader:
    """The same loader with ``batches`` of :class:`SeededSamples`, whose ``run_seed`` is to be set."""
    options: dict[str, Any] = {name: getattr(loader, name) for name in KEPT}
    return type(loader)(SeededSamples(loader.dataset), batch_sampler=batches, **options)  # type: ignore[arg-type]
