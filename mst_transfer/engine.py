"""Training loop of the detection configs."""

from __future__ import annotations

from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop


@LOOPS.register_module()
class CappedEpochLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop that can stop early: after ``max_iters`` iterations, in the middle of an epoch.

    The epoch in which it stops ends as every other (a checkpoint is written), but a run stopped early does not
    validate: tools/test.py measures what is wanted of a trial run.

    Args:
        runner: The runner.
        dataloader: Training data.
        max_epochs: Length of the schedule.
        max_iters: Stop after so many iterations, or None for all epochs.
        kwargs: ``val_begin``, ``val_interval``, ``dynamic_intervals`` as in MMEngine.

    Raises:
        ValueError: ``max_iters`` is not positive.
    """

    def __init__(
        self, runner: Any, dataloader: Any, max_epochs: int, max_iters: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        if max_iters is not None and max_iters < 1:
            raise ValueError(f"max_iters must be positive or None, got {max_iters}")
        self.full_iters = max_epochs * len(self.dataloader)
        self._max_iters: int = min(self.full_iters, max_iters or self.full_iters)

    def run_epoch(self) -> None:
        """One epoch, or its part up to the last iteration."""
        if self._iter < self._max_iters:  # else resumed where it had stopped
            self.runner.call_hook("before_train_epoch")
            self.runner.model.train()
            for index, batch in enumerate(self.dataloader):
                self.run_iter(index, batch)
                if self._iter >= self._max_iters:
                    break
            self.runner.call_hook("after_train_epoch")
            self._epoch += 1
        if self._max_iters <= self._iter < self.full_iters:
            self.stop_training = True
            self.val_begin = self._epoch + 1
