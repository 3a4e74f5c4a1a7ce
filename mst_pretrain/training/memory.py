"""Memory that runs out: a message with batch, crops, peak and what to type; a killed data worker is named as that."""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from mmengine.dist import get_world_size

from ..data.pixel_cache import free_memory
from ..runtime.environment import peak_memory
from ..runtime.errors import UserError
from .first_steps import input_shapes
from .patient_loader import end_workers
from .schedule_and_teacher import unwrap

Result = TypeVar("Result")
CPU_REFUSED = "can't allocate memory"  # PyTorch's words, of a RuntimeError
LEAST_TRIED = 2  # images: batch norm takes no single one
# PyTorch's words of a worker that ended by a signal, and of one that was found dead
BY_SIGNAL = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) is killed by signal: ([\w ]+)")
FOUND_DEAD = re.compile(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly")


class OutOfMemory(UserError):
    """A training step did not fit into the memory of its device."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or CPU_REFUSED in str(error)


@contextmanager
def named_memory(runner: Any, batch: Any) -> Iterator[None]:
    """Raise :class:`OutOfMemory` where a step on this micro-batch runs out of memory.

    In one process smaller batches are tried, so that one is recommended that fits; the run ends anyway.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        peak, failed = peak_memory(), error
    else:
        return
    traceback.clear_frames(failed.__traceback__)  # they hold the step's activations
    raise OutOfMemory(describe(runner, batch, peak, str(failed))) from failed


def describe(runner: Any, batch: Any, peak: float, said: str) -> str:
    """The message of a step that did not fit.

    Args:
        runner: Its training.
        batch: The micro-batch.
        peak: GiB in use at most.
        said: PyTorch's message.
    """
    images = int(runner.train_loop.per_process)
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", said)
    more = f", and {asked[1]} more were asked for" if asked else ""
    latest = runner.files.latest
    which = "The first two continue" if hasattr(runner.train_loop, "accumulate") else "The first continues"
    go_on = f" {which} this run: --resume (from {latest})." if latest.is_file() else ""
    shapes = "; ".join(input_shapes(batch))
    return (
        f"Step {runner.iter + 1} ran out of memory on {_device()}: a batch of {images} images, as {shapes}; "
        f"{peak:.1f} GiB were in use at the peak{more}.{go_on} [R12]\n"
        + "\n".join(f"  {line}" for line in remedies(runner, images, fitting(runner, batch, images)))
    )


def remedies(runner: Any, images: int, fit: int | None) -> list[str]:
    """Three things to type, the first of which is the cheapest.

    Args:
        runner: The training that ran out of memory.
        images: Of its micro-batch.
        fit: Of one that was found to fit; 0 where none does, None where none was tried.
    """
    option, pretrains = "--cfg-options", hasattr(runner.train_loop, "accumulate")
    again = "model.gradient_checkpointing=True" if pretrains else "+model.backbone.with_cp=True"
    lines = [f"Compute activations a second time, slower: {option} {again}"]
    size = fit or next((part for part in range(images // 2, 0, -1) if images % part == 0), 1)
    times = images // size
    if pretrains:
        accumulated = f"train_cfg.accumulate={runner.train_loop.accumulate * times}"
    else:
        before = int(getattr(runner.optim_wrapper, "_accumulative_counts", 1))
        accumulated = f"optim_wrapper.accumulative_counts={before * times}"
    known = {None: "", 0: " (although not even 2 images fitted)"}.get(fit, f" ({fit} images fit: tried)")
    lines.append(
        f"The same step in parts{known}: {option} train_dataloader.batch_size={size} {accumulated}"
        + ("" if pretrains or times == 1 else f" (lengths in iterations become {times} times as large)")
    )
    count = getattr(getattr(runner.train_dataloader.dataset, "crops", None), "local_count", 0)
    if count > 1:
        lines.append(
            f"Fewer local crops, in a new run: {option} train_dataloader.dataset.crops.local_count={count // 2}"
        )
    else:
        lines.append("Smaller images, in a new run: scale or crop_size in train_dataloader.dataset.pipeline")
    return lines


def fitting(runner: Any, batch: Any, images: int) -> int | None:
    """The largest part of a batch, of those that divide it, whose step fits: tried, in one process.

    Returns:
        0 where none fits; None where none can be tried: several processes would have to do so together.
    """
    sizes = [size for size in range(images // 2, LEAST_TRIED - 1, -1) if images % size == 0]
    if get_world_size() > 1 or not sizes:
        return None
    for size in sizes:
        _forget(runner)
        try:
            runner.model.train_step(
                {key: value[:size] for key, value in batch.items()}, optim_wrapper=runner.optim_wrapper
            )
            return size
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
    return 0


def _forget(runner: Any) -> None:
    """Free what a step that failed has left."""
    runner.optim_wrapper.zero_grad()
    if (distillation := getattr(unwrap(runner), "distillation", None)) is not None:
        distillation.discard()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device() -> str:
    if not torch.cuda.is_available():
        return f"the CPU ({free_memory() / 2**30:.1f} GiB are free now)"
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{found.name} ({found.total_memory / 2**30:.1f} GiB)"


def lost_worker(error: BaseException, workers: int) -> str:
    """What to say where the system has ended a data worker; empty for every other error.

    Args:
        error: That met the training.
        workers: That it has.
    """
    signalled, dead = BY_SIGNAL.search(str(error)), FOUND_DEAD.search(str(error))
    # While a batch is taken over from a worker that ends, its connection breaks; an error inside it says "Caught".
    broken = isinstance(error, ConnectionError | EOFError) and "Caught" not in str(error)
    if workers == 0 or (signalled is None and dead is None and not broken):
        return ""
    found = signalled or dead
    by = signalled[2].strip() if signalled else ""
    what = f"A worker that loads images{f' (process {found[1]})' if found else ''}"
    fewer = f"--cfg-options train_dataloader.num_workers={workers // 2}"
    if by == "Bus error":
        return (
            f"{what} found no space in the shared memory, /dev/shm. Make it larger (Docker: --shm-size=8g), or have "
            f"fewer workers (now {workers}): {fewer} [R13]"
        )
    if by not in ("", "Killed"):
        return (
            f"{what} crashed ({by}): a library that decodes images has a fault. Continue with --resume. [R13]"
        )
    free = free_memory()
    left = f"; {free / 2**30:.1f} GiB are free now" if free else ""
    return (
        f"{what} was killed by the system or by somebody ({by or 'it ended without a word'}). The system does so where "
        f"memory runs out{left}. Give the job more (Slurm: --mem), or have fewer workers (now {workers}): {fewer} [R13]"
    )


def names_lost_workers(run: Callable[..., Result]) -> Callable[..., Result]:
    """For the ``run`` of a loop: PyTorch raises the end of a worker wherever the training is at that moment."""

    @functools.wraps(run)
    def named(loop: Any) -> Result:
        try:
            return run(loop)
        except RuntimeError as error:
            said = lost_worker(error, loop.dataloader.num_workers)
            if not said:
                raise
            end_workers(loop.dataloader)
            latest = loop.runner.files.latest
            go_on = f" Then continue from {latest} with --resume." if latest.is_file() else ""
            raise UserError(f"{said}{go_on}") from error

    return named
