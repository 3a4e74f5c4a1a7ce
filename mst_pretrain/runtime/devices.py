"""What an evaluation asks of a device: the precision of a forward pass, and copies that do not make it wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .argument_types import PRECISIONS as PRECISIONS


def usable_cores() -> int:
    """Cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device is a GPU with units for bfloat16."""
    # Older NVIDIA GPUs only emulate it, and PyTorch calls that supported.
    return (
        device.type == "cuda"
        and torch.cuda.is_bf16_supported()
        and bool(torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0))
    )


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether a device is a CPU without instructions for bfloat16 (Intel and AMD: before AVX-512)."""
    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def precision_on(device: torch.device, precision: str = "auto") -> str:
    """One of :data:`PRECISIONS` without ``auto``, which is bfloat16 where the device computes in it, else float32."""
    if precision == "auto":
        return "bfloat16" if computes_bfloat16(device) else "float32"
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Autocast in bfloat16, or nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def run_in(precision: str, device: torch.device, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` in :func:`autocast`; what comes out, a tensor or a sequence of them, is float32."""
    if precision == "float32":
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        with autocast(device, precision):
            found = function(*args, **kwargs)
        return found.float() if isinstance(found, Tensor) else type(found)(part.float() for part in found)

    return call


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the CPU; the function returned waits for this copy, but for no later work of a GPU."""
    if not tensor.is_cuda:
        host = tensor.cpu()
        return lambda: host
    host = tensor.to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait


def on_host(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors on the CPU, in order; a GPU computes the next one while one is copied."""
    before: Callable[[], Tensor] | None = None
    for tensor in tensors:
        copy = to_host(tensor)
        if before is not None:
            yield before()
        before = copy
    if before is not None:
        yield before()
