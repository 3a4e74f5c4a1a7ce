"""How fast a model predicts, and how much memory the test took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook

from mst_pretrain.runtime.environment import peak_process_memory

WARM_UP = 5  # batches [ours]


class SpeedHook(Hook):
    """Times ``test_step``: preprocessing, network and post-processing, from a loaded batch to its predictions.

    Loading images and scoring are no part of it. The first batches are left out: five, or half where there are fewer
    than ten. On a GPU every batch waits for the device.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[int, float]] = []

    def before_test(self, runner: Any) -> None:
        """Put the clock around the model's ``test_step``."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        runner.model.test_step = self.timed(runner.model.test_step)

    def timed(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """``step`` with a clock around it."""

        def timed_step(data: Any) -> Any:
            start = _now()
            predictions = step(data)
            self.batches.append((len(predictions), _now() - start))
            return predictions

        return timed_step

    def summary(self) -> dict[str, Any]:
        """Speed of this process and its peak memory, for JSON."""
        warm_up = min(WARM_UP, len(self.batches) // 2)
        counted = self.batches[warm_up:]
        images, seconds = sum(count for count, _ in counted), sum(time for _, time in counted)
        gpu = torch.cuda.is_available()
        return {
            "images_per_second": images / seconds if seconds else None,
            "ms_per_image": 1000 * seconds / images if images else None,
            "images_timed": images,
            "warm_up_images": sum(count for count, _ in self.batches[:warm_up]),
            "batch_size": max((count for count, _ in self.batches), default=0),
            "peak_gpu_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
            "peak_process_memory_mib": peak_process_memory() / 2**20,
        }


def speed_line(summary: dict[str, Any]) -> str:
    """One line for a person."""
    if summary["images_per_second"] is None:
        return "speed: no image was timed"
    gpu = summary["peak_gpu_memory_mib"]
    memory = f"peak memory {summary['peak_process_memory_mib']:,.0f} MiB"
    memory += "" if gpu is None else f", on the GPU {gpu:,.0f} MiB"
    return (
        f"speed: {summary['images_per_second']:.2f} images/s, {summary['ms_per_image']:.1f} ms per image in batches of "
        f"{summary['batch_size']} ({summary['images_timed']} images after a warm-up of "
        f"{summary['warm_up_images']}); {memory}"
    )


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
