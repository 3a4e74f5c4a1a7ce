"""What a pretraining run will cost, from a few of its steps on the device at hand."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mmengine.config import Config

from ..runtime.config import check_seed, explain, import_custom_modules
from ..runtime.devices import usable_cores
from ..runtime.environment import environment_info
from ..runtime.errors import UserError
from ..runtime.value_types import check_value_types
from .launch import check_pretraining
from .loop import run_length
from .single_step import Measured, loader_of, measure

MARGIN = 0.1  # of a GPU's free memory, for what PyTorch's allocator keeps beside tensors
ASSUMED = (
    "one process was measured: several GPUs are assumed to take as long each, with no time for exchanging gradients",
    "each process is assumed to have its own cores for its workers, at the speed that one core had here",
    "every image is decoded in every epoch, as if none were kept (cache), and what decode='device' leaves to the GPU, "
    "its time and the memory of kept images, is left out",
    "logs, checkpoints, the look at every image before the first step, and evaluation are left out",
)


@dataclass(frozen=True)
class Cost:
    """An estimate; times are in seconds where no other unit is named, memory in GiB.

    Attributes:
        gpus: Processes.
        batch: Images of a micro-batch of one process.
        accumulate: Micro-batches of an iteration.
        global_batch: Images of an iteration.
        images: Of the data set.
        iterations: Of the whole run.
        iterations_per_epoch: See :class:`PretrainLoop`.
        step_seconds: Of an iteration that never waits for images.
        load_seconds: Of an image on one core, or None: not measured.
        iteration_seconds: Of an iteration, with the config's workers.
        limit: ``step`` or ``loader``, whichever sets the pace.
        workers: The config's, per process.
        working: Of these, how many have a core.
        workers_needed: Per process, for the loader to keep up with the step, or None.
        cores: Of this machine, that this process may use.
        peak_gib: Of the step: the GPU's tensors, or this process.
        largest_batch: Images of a micro-batch that fit, or None: not measured.
        hours: Of the run.
        gpu_hours: ``hours * gpus``.
    """

    gpus: int
    batch: int
    accumulate: int
    global_batch: int
    images: int
    iterations: int
    iterations_per_epoch: int
    step_seconds: float
    load_seconds: float | None
    iteration_seconds: float
    limit: str
    workers: int
    working: int
    workers_needed: int | None
    cores: int
    peak_gib: float
    largest_batch: int | None
    hours: float
    gpu_hours: float


def workers_needed(load_seconds: float, images: int, step_seconds: float) -> int:
    """Workers that make ``images``, each in ``load_seconds`` on a core, within a step; at least 1."""
    return max(math.ceil(load_seconds * images / step_seconds), 1)


def largest_batch(peak_bytes: dict[int, int], limit: float) -> int | None:
    """Images of a micro-batch whose peak memory is at most ``limit``, on the line through two measured peaks.

    Args:
        peak_bytes: Peak memory in bytes by number of images; two of them, or fewer.
        limit: In bytes.

    Returns:
        None with fewer than two peaks, or if more images take no more memory.
    """
    if len(peak_bytes) < 2:
        return None
    (few, low), (many, high) = sorted(peak_bytes.items())
    per_image = (high - low) / (many - few)
    return max(math.floor(few + (limit - low) / per_image), 0) if per_image > 0 else None


def estimate(cfg: Config, measured: Measured, gpus: int, cores: int, here: int) -> Cost:
    """The cost of a run: arithmetic alone.

    Args:
        cfg: A pretraining config.
        measured: What one process took.
        gpus: Processes of the run.
        cores: Of this machine.
        here: How many of the processes share these cores.

    Raises:
        UserError: See :func:`length_of`; or the batch did not fit into the GPU.
    """
    batch, accumulate = cfg.train_dataloader.batch_size, cfg.train_cfg.get("accumulate", 1)
    workers = cfg.train_dataloader.get("num_workers", 0)
    per_epoch, iterations = length_of(cfg, gpus, measured.images)
    if batch not in measured.peak_bytes:
        fits = largest_batch(measured.peak_bytes, (1 - MARGIN) * (measured.usable_bytes or 0))
        raise UserError(
            f"{cfg.filename}: train_dataloader.batch_size={batch} does not fit into the GPU's free memory"
            f"{f'; about {fits} images do' if fits else ''}. Lower it and raise train_cfg.accumulate, or set "
            "model.gradient_checkpointing=True."
        )
    step, load, own_images = measured.step_seconds[batch], measured.load_seconds, batch * accumulate
    working = min(workers, max(cores // here, 1))
    seconds, limit, needed = step, "step", None
    if load is not None:
        loading = load * own_images / max(working, 1)
        seconds = max(step, loading) if workers else step + loading
        limit, needed = "loader" if loading > step else "step", workers_needed(load, own_images, step)
    exchange = measured.exchange_bytes if gpus > 1 else 0
    fits = None
    if measured.usable_bytes is not None:
        fits = largest_batch(measured.peak_bytes, (1 - MARGIN) * measured.usable_bytes - exchange)
    hours = iterations * seconds / 3600
    return Cost(
        gpus=gpus,
        batch=batch,
        accumulate=accumulate,
        global_batch=batch * gpus * accumulate,
        images=measured.images,
        iterations=iterations,
        iterations_per_epoch=per_epoch,
        step_seconds=step,
        load_seconds=load,
        iteration_seconds=seconds,
        limit=limit,
        workers=workers,
        working=working,
        workers_needed=needed,
        cores=cores,
        peak_gib=(measured.peak_bytes[batch] + exchange) / 2**30,
        largest_batch=fits,
        hours=hours,
        gpu_hours=hours * gpus,
    )


def cost_of(cfg: Config, gpus: int, steps: int = 5, images: int | None = None) -> Cost:
    """Measure a few steps of a pretraining config on this machine, and estimate its run. Writes nothing.

    Args:
        cfg: The config.
        gpus: Processes of the run, at least 1.
        steps: To measure, at least 1.
        images: Of the data set; its crops are then noise, and the loader is not measured. None: the config's data.

    Raises:
        UserError: It is not a pretraining config, a value of it is wrong, its images are not there, or its batch does
            not fit into the GPU.
    """
    if (cfg.get("train_cfg") or {}).get("type") != "PretrainLoop":
        raise UserError(
            f"{cfg.filename} is not a pretraining config, whose train_cfg.type is PretrainLoop. Give one of "
            "configs/pretrain."
        )
    check_pretraining(cfg, images=False)
    if images is None:
        try:
            check_pretraining(cfg)
        except UserError as error:
            raise UserError(
                f"{error} Without the images, --images N estimates the rest for N of them."
            ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = usable_cores()
    here = min(gpus, torch.cuda.device_count()) if device.type == "cuda" else gpus
    try:
        import_custom_modules(cfg)
        check_value_types(cfg)
        check_seed(cfg)
        loader = None
        if images is None:
            loader = loader_of(cfg, cfg.train_dataloader.batch_size)
            dataset: Any = loader.dataset
            images = len(dataset)
        length_of(cfg, gpus, images)  # it may be refused before anything is measured
        return estimate(cfg, measure(cfg, device, loader, images, steps), gpus, cores, here)
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError) as error:
        raise explain(cfg, error) or error from error


def length_of(cfg: Config, gpus: int, images: int) -> tuple[int, int]:
    """Iterations of an epoch and of the whole run; raises as :func:`run_length`."""
    length = cfg.train_cfg
    if length.get("accumulate", 1) < 1:
        raise UserError(f"train_cfg.accumulate is {length.accumulate}. Give 1 or more.")
    global_batch = cfg.train_dataloader.batch_size * gpus * length.get("accumulate", 1)
    per_epoch, _, iterations = run_length(
        images, global_batch, length.get("max_epochs"), length.get("max_iters")
    )
    return per_epoch, iterations


def as_json(cost: Cost, **settings: Any) -> dict[str, Any]:
    """An estimate with what it assumes and what it was measured on."""
    return {
        **settings,
        **asdict(cost),
        "assumed": list(ASSUMED),
        "memory_margin": MARGIN,
        **environment_info(),
    }


def report(cost: Cost) -> str:
    """An estimate for a person."""
    on_gpu = torch.cuda.is_available()
    kind = "GPU" if on_gpu else "process"
    loader = "not measured: with --images no image is read"
    if cost.load_seconds is not None:
        loader = (
            f"{1000 * cost.load_seconds:.2f} ms per image and core. Workers for each {kind} that keep up with the "
            f"step: {cost.workers_needed}; the config has {cost.workers}, this machine cores for {cost.working} of them"
        )
    limit = f"the {cost.limit}" if cost.load_seconds is not None else "the step, if the loader keeps up"
    largest = "not estimated: two batches must be measured" if on_gpu else "not estimated on a CPU"
    if cost.largest_batch is not None:
        largest = f"about {cost.largest_batch} images a {kind}, with {MARGIN:.0%} of its free memory to spare"
    rows = {
        "images a step": f"{cost.global_batch} = {cost.batch} x {cost.gpus} ({kind}) x {cost.accumulate} (accumulated)",
        "step": f"{cost.step_seconds:.4f} s, median, without waiting for images",
        "loader": loader,
        "limit": f"{limit}: {cost.iteration_seconds:.4f} s an iteration",
        "peak memory": f"{cost.peak_gib:.2f} GiB of the {'GPU' if on_gpu else 'process, the program included'}",
        "largest batch": largest,
        "length": f"{cost.iterations} iterations, {cost.iterations_per_epoch} an epoch of {cost.images} images",
        "whole run": f"{cost.hours:.2f} hours, {cost.gpu_hours:.2f} {kind}-hours",
    }
    lines = [f"{name:14} {text}" for name, text in rows.items()]
    return "\n".join([*lines, "An estimate:", *(f"  {text};" for text in ASSUMED)])[:-1] + "."
