"""Numbers that all processes of a training see alike, so that all of them act on them at the same step."""

from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from torch import Tensor
from torch import distributed as dist


class Agreement:
    """Sums a few numbers over all processes once per step, without waiting for a GPU's queue.

    In one process, and on CPUs, the answer is this step's. On GPUs it is the previous step's (zeros in the first): its
    sum is on the host by then, while this step's waits behind kernels that have not run yet.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.previous: tuple[Tensor, torch.cuda.Event] | None = None

    def __call__(self, numbers: list[float]) -> list[float]:
        """Hand in this process's numbers, as many as every other process; take the sums over all processes."""
        if get_world_size() == 1:
            return numbers
        if self.device.type != "cuda":
            total = torch.tensor(numbers, device=self.device)
            dist.all_reduce(total)
            return total.tolist()
        total = torch.tensor(numbers).pin_memory().to(self.device, non_blocking=True)
        dist.all_reduce(total)
        host = torch.empty(len(numbers), pin_memory=True).copy_(total, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        previous, self.previous = self.previous, (host, event)
        if previous is None:
            return [0.0] * len(numbers)
        previous[1].synchronize()
        return previous[0].tolist()
