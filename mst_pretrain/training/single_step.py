"""Pretraining steps by themselves, of the model of a config and a batch of crops: no run, no files."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch.utils.data import DataLoader

from ..data.datasets import UnlabelledImages
from ..data.device_batches import DeviceBatches
from ..data.multicrop import DRAWS, MultiCrop, color_parameters
from ..runtime.environment import peak_process_memory
from .runner import MSTRunner

WARM_UP = 2  # steps that are not counted: kernels are chosen, the optimizer makes its state
LOADED = 3  # batches that the loader makes; the first is not counted
MOMENTUM = 0.996  # of the teacher; its value changes no time


class MSTStep:
    """The model of a config, its optimizer, and a batch of crops.

    Args:
        cfg: A pretraining config; ``optim_wrapper.dtype`` decides the precision.
        data: A collated batch, of :func:`noise` or of the config's loader; it may be exchanged between steps.
        device: Where all is.
        accumulate: Micro-batches of an iteration, each of which is ``data``.
    """

    def __init__(self, cfg: Config, data: dict[str, Any], device: torch.device, accumulate: int = 1) -> None:
        torch.manual_seed(0)
        self.model = MODELS.build(cfg.model).to(device).train()
        self.wrapper: Any = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.wrapper._accumulative_counts = accumulate
        self.data, self.accumulate = data, accumulate

    def __call__(self) -> None:
        """All that one iteration computes."""
        for _ in range(self.accumulate):
            self.model.train_step(self.data, self.wrapper)
        self.model.update_teacher(MOMENTUM)


def noise(crops: MultiCrop, batch: int) -> dict[str, Any]:
    """A collated batch of noise with the colour parameters of real images, pinned where there is a GPU."""
    rng = np.random.default_rng(0)
    views = len(crops.global_crops)
    drawn = [
        color_parameters(crops.recipes, rng.random((len(crops.recipes), DRAWS))[:, -10:])
        for _ in range(batch)
    ]
    parameters = torch.from_numpy(np.stack(drawn))
    generator = torch.Generator().manual_seed(0)
    sides = (crops.global_crops[0].height_width, crops.local_crop.height_width)
    pixels = [
        torch.randint(0, 256, (batch, count, 3, *size), dtype=torch.uint8, generator=generator)
        for count, size in zip((views, crops.local_count), sides, strict=True)
    ]
    data = {
        "global_crops": pixels[0],
        "local_crops": pixels[1],
        "global_parameters": parameters[:, :views],
        "local_parameters": parameters[:, views:],
        "seed": torch.arange(batch),
    }
    return {name: value.pin_memory() for name, value in data.items()} if torch.cuda.is_available() else data


@dataclass(frozen=True)
class Measured:
    """What the steps of one process took.

    Attributes:
        step_seconds: Of an iteration, all its micro-batches, median; by images of a micro-batch.
        load_seconds: Median time in which the loader makes one image on one core. None without images.
        peak_bytes: Peak memory, by images of a micro-batch: the GPU's tensors, or this process.
        usable_bytes: Memory of the GPU that is free for this process; None on a CPU.
        exchange_bytes: What DDP's buckets add to the peak where there are several GPUs.
        images: Of the data set.
    """

    step_seconds: dict[int, float]
    load_seconds: float | None
    peak_bytes: dict[int, int]
    usable_bytes: int | None
    exchange_bytes: int
    images: int


def measure(
    cfg: Config, device: torch.device, loader: DataLoader | None, images: int, steps: int
) -> Measured:
    """Seconds and memory of the steps of one process.

    On a GPU a step of half the batch tells how memory grows. Of a batch that does not fit halves are tried until two
    do, and the result has no entry of the batch itself.

    Args:
        cfg: A pretraining config.
        device: Where the steps are made.
        loader: Of :func:`loader_of`; None takes noise.
        images: Of the data set.
        steps: To measure.
    """
    batch, load_seconds = int(cfg.train_dataloader.batch_size), None
    crops = MultiCrop(**cfg.train_dataloader.dataset.get("crops", {}))
    data = noise(crops, batch)
    if loader is not None:
        data, load_seconds = timed_load(loader, batch, device)
    torch.backends.cudnn.benchmark = bool((cfg.get("env_cfg") or {}).get("cudnn_benchmark"))
    step = MSTStep(cfg, data, device, cfg.train_cfg.get("accumulate", 1))
    crops.check(*step.model.crop_units)
    buckets = sum(p.numel() * p.element_size() for p in step.model.parameters() if p.requires_grad)
    seconds: dict[int, float] = {}
    if device.type != "cuda":
        seconds[batch] = timed_steps(step, steps, device)
        return Measured(seconds, load_seconds, {batch: peak_process_memory()}, None, buckets, images)
    peaks: dict[int, int] = {}
    size = batch
    while size and len(peaks) < 2:
        if size != batch:
            step.data = noise(crops, size)
            if loader is not None:
                step.data, _ = timed_load(loader_of(cfg, size, loader.dataset), size, device, 1)
        try:
            seconds[size] = timed_steps(step, steps if size == batch else 1, device)
            peaks[size] = torch.cuda.max_memory_allocated(device)
        except torch.OutOfMemoryError:
            step.model.distillation.discard()
            step.wrapper._inner_count = 0  # of micro-batches
        step.wrapper.zero_grad()
        torch.cuda.empty_cache()
        size //= 2
    usable = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return Measured(seconds, load_seconds, peaks, usable, buckets, images)


def loader_of(cfg: Config, batch: int, dataset: Any = None) -> DataLoader:
    """The config's loader without workers, for batches of ``batch`` images; of ``dataset`` if that is open already."""
    given = {key: value for key, value in cfg.train_dataloader.items() if key != "prefetch_factor"}
    alone = dict(num_workers=0, persistent_workers=False, pin_memory=torch.cuda.is_available())
    if isinstance(dataset, UnlabelledImages) and dataset.on_device:
        given["collate_fn"] = dict(type="collate_for_device")
    seed = (cfg.get("randomness") or {}).get("seed") or 0
    return MSTRunner.build_dataloader(
        {**given, **alone, "batch_size": batch, "dataset": given["dataset"] if dataset is None else dataset},
        seed=seed,
    )


def timed_load(
    loader: DataLoader, batch: int, device: torch.device, count: int = LOADED
) -> tuple[dict[str, Any], float]:
    """A batch of crops, and the median seconds of an image on one thread, which is what a worker has.

    What the data set leaves to the device is done, and not counted.
    """
    threads, seconds, batches = torch.get_num_threads(), [], iter(loader)
    torch.set_num_threads(1)
    try:
        for _ in range(count):
            began = time.perf_counter()
            data = next(batches)
            seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    dataset = loader.dataset
    if isinstance(dataset, UnlabelledImages) and dataset.on_device:
        data = DeviceBatches(dataset, device)(data)
    return data, statistics.median(seconds[1:] or seconds) / batch


def timed_steps(step: MSTStep, count: int, device: torch.device) -> float:
    """Median seconds of ``count`` steps after :data:`WARM_UP` others; on a GPU its peak memory is theirs."""
    seconds = []
    for number in range(WARM_UP + count):
        if number == WARM_UP and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UP:])
