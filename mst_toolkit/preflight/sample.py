"""A sample of the data: read, decoded and augmented as a worker does it, timed, and told apart from other data."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor

from mst_pretrain.data.broken_images import Fault, decode
from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.data.files import first_of
from mst_pretrain.data.sources import FileSource
from mst_pretrain.runtime.config import explain
from mst_pretrain.training.runner import MSTRunner

from ..findings import OK, WARN, Line
from .limits import Loading

SAMPLE = 24  # images read, decoded and augmented, evenly over the data set


@dataclass
class Sampled:
    """What a sample of the training data has shown.

    Attributes:
        dataset: That of the config.
        loading: How a process gets its batches.
        data: Number of images, and digests of their names and of the content of a few: equal for equal data.
    """

    dataset: Any
    loading: Loading
    data: dict[str, Any]


def sample(cfg: Config, rank: int, found: list[Sampled]) -> Iterator[Line]:
    """Read images of the training data.

    Args:
        cfg: A config whose modules are imported.
        rank: Of this process: each one reads other images.
        found: Receives what was found.
    """
    given = {key: value for key, value in cfg.train_dataloader.items() if key != "prefetch_factor"}
    alone = dict(num_workers=0, persistent_workers=False, pin_memory=False)
    seed = (cfg.get("randomness") or {}).get("seed") or 0
    try:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
            dataset: Any = MSTRunner.build_dataloader({**given, **alone}, seed=seed).dataset
            # Every process compares the same images, and times others.
            data = data_of(dataset, evenly(len(dataset), SAMPLE // 2, 0))
            seconds, faults, samples = read(dataset, evenly(len(dataset), SAMPLE, rank), seed)
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError) as error:
        raise explain(cfg, error) or error from error
    batch = int(cfg.train_dataloader.batch_size)
    # PyTorch stacks samples of one shape to one tensor; mmdet's and mmseg's lists stay lists
    stacked = isinstance(dataset, UnlabelledImages) and not dataset.on_device
    sizes = [[tensor.numel() * tensor.element_size() for tensor in tensors(one)] for one in samples]
    pieces = statistics.fmean(map(len, sizes))
    workers = int(cfg.train_dataloader.get("num_workers", 0))
    loading = Loading(
        workers=workers,
        prefetch=int(cfg.train_dataloader.get("prefetch_factor") or 2),
        batch_bytes=int(batch * statistics.fmean(map(sum, sizes))),
        batch_tensors=round(pieces * (1 if stacked else batch)),
        seconds=statistics.median(seconds),
    )
    found.append(Sampled(dataset, loading, data))
    if faults:
        yield (
            WARN,
            f"{len(faults)} of {len(seconds)} images that were tried cannot be used and would be replaced by others: "
            f"{first_of([fault.name for fault in faults])} ({faults[0].reason}) Copy them again.",
        )
    yield (
        OK,
        f"{len(dataset):,} images; {len(seconds) - len(faults)} read, decoded and augmented, "
        f"{1000 * loading.seconds:.1f} ms each; a batch of {batch} is {loading.batch_bytes / 2**20:.1f} MiB",
    )


def read(dataset: Any, indices: Sequence[int], seed: int) -> tuple[list[float], list[Fault], list[Any]]:
    """Seconds of each sample on one thread, the images that could not be used, and the samples."""
    get: Callable[[Any], Any]
    wanted: list[Any]
    if isinstance(dataset, UnlabelledImages):
        get, wanted = dataset.__getitem__, [(0, index) for index in indices]
    else:
        from mst_transfer.training.resume import Place, SeededSamples

        seeded = SeededSamples(dataset)
        vars(dataset)["run_seed"] = seed
        get, wanted = seeded.__getitem__, [Place(0, place, index) for place, index in enumerate(indices)]
    seconds, samples = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what a worker has
    try:
        for item in wanted:
            began = time.perf_counter()
            samples.append(get(item))
            seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return seconds, decode([one.pop("faults", "") for one in samples]), samples


def evenly(size: int, count: int, offset: int) -> list[int]:
    """Up to ``count`` different indices below ``size``, evenly spaced, moved by ``offset``."""
    count = min(size, count)
    return sorted({(index * size // count + offset) % size for index in range(count)})


def data_of(dataset: Any, indices: Sequence[int]) -> dict[str, Any]:
    """What is equal where two processes read the same data, wherever it lies."""
    content = hashlib.sha256()
    if isinstance(dataset, UnlabelledImages):
        source = dataset.source
        names = source.paths.digest() if isinstance(source, FileSource) else ""
        for index in indices:
            content.update(source.read(index))
        return {"images": len(dataset), "names": names, "content": content.hexdigest()}
    from mst_transfer.comparison.identity import data_of as identity
    from mst_transfer.training.resume import files_of

    for index in indices:
        for path in files_of(dataset, index):
            content.update(path.read_bytes() if path.is_file() else b"")
    known = identity(dataset)
    return {"images": known["images"], "names": known["sha256"], "content": content.hexdigest()}


def tensors(node: Any) -> Iterator[Tensor]:
    """Every tensor in nested dictionaries, sequences and MMEngine's data elements."""
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from tensors(value)
    elif isinstance(node, BaseDataElement):
        for _, value in node.all_items():
            yield from tensors(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from tensors(value)


def workspace(work_dir: str | Path) -> Path:
    """The nearest folder that exists at or above a work directory: its disk is the run's."""
    path = Path(work_dir).absolute()
    while not path.is_dir():
        path = path.parent
    return path
