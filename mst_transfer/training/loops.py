"""Training loops of the detection and segmentation configs: a resumed run is the uninterrupted one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from mst_pretrain.runtime.run_files import FIRST
from mst_pretrain.training.memory import named_memory, names_lost_workers
from mst_pretrain.training.randomness import seed_all
from mst_pretrain.training.runner import step_batch
from mst_pretrain.training.watch import rescued

from ..comparison.identity import data_of
from .resume import StepBatches, numbered


class ExactLoop(BaseLoop):
    """What both loops share: batches that are known by their number, and what a checkpoint tells of the run."""

    runner: Any
    dataloader: DataLoader
    _iter: int

    def number_batches(self, endless: bool) -> None:
        """Put :class:`StepBatches` into the loader."""
        self.batches = StepBatches(self.dataloader.batch_sampler, endless)
        self.dataloader = numbered(self.dataloader, self.batches)
        self.per_process = self.batches.group

    @property
    def global_batch(self) -> int:
        """Images of one optimizer step."""
        return step_batch(self.runner, self.runner.optim_wrapper)

    @cached_property
    def data(self) -> dict[str, Any]:
        """Number of images and their digest."""
        return data_of(self.dataloader.dataset)

    def before(self) -> None:
        """Call the hooks; what was stopped in a validation begins with it."""
        self.runner.call_hook("before_train")
        if self.runner.files.tidy and self._iter == 0:
            meta = {"epoch": 0, "iter": 0}
            options = {"save_optimizer": False, "save_param_scheduler": False, "by_epoch": False}
            self.runner.save_checkpoint(self.runner.work_dir, FIRST, meta=meta, **options)
        if self.runner.unvalidated and self.runner.val_loop is not None:
            self.runner.val_loop.run()

    def batches_from(self, epoch: int, skipped: int) -> Iterator[Any]:
        """The batches of the next iterations, in groups as those of the run's first start."""
        self.batches.group = (self.runner.resumed or {}).get("per_process", self.per_process)
        vars(self.dataloader.dataset)["run_seed"] = self.runner.seed
        self.batches.start(self._iter, epoch, skipped)
        return rescued(self.runner, self.dataloader)

    def run_iter(self, *args: Any) -> None:
        """One iteration, whose random numbers are its own."""
        seed_all(self.runner.seed, get_rank(), self._iter)
        with named_memory(self.runner, args[-1]):
            super().run_iter(*args)


@LOOPS.register_module()
class CappedEpochLoop(ExactLoop, EpochBasedTrainLoop):
    """MMEngine's epoch loop that continues inside an epoch, and can stop there: after ``max_iters`` iterations.

    An epoch that is cut is not done: a checkpoint is written, the schedules by epoch do not move and nothing is
    validated (tools/test.py measures what is wanted of a trial run). Resumed, it goes on with the batches that are
    left. All other arguments are MMEngine's.
    """

    def __init__(
        self, runner: Any, dataloader: Any, max_epochs: int, max_iters: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self.number_batches(endless=False)
        self.full_iters = max_epochs * len(self.dataloader)
        self._max_iters: int = min(self.full_iters, max_iters or self.full_iters)

    @names_lost_workers
    def run(self) -> Any:
        """Train from the current epoch to the last."""
        self.before()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            is_due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
            if self.runner.val_loop is not None and self._epoch >= self.val_begin and is_due:
                self.runner.val_loop.run()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """One epoch or what is left of it, up to the last iteration."""
        done = self._iter - self._epoch * len(self.dataloader)
        if self._iter < self._max_iters or done == len(self.dataloader):  # else resumed where it had stopped
            self.runner.call_hook("before_train_epoch")
            self.runner.model.train()
            for index, batch in enumerate(self.batches_from(self._epoch, done), start=done):
                self.run_iter(index, batch)
                if self._iter >= self._max_iters:
                    break
            if self._iter == (self._epoch + 1) * len(self.dataloader):
                self.runner.call_hook("after_train_epoch")
                self._epoch += 1
            elif any(isinstance(hook, CheckpointHook) for hook in self.runner.hooks):
                meta, name = {"epoch": self._epoch, "iter": self._iter}, f"iter_{self._iter}.pth"
                self.runner.save_checkpoint(self.runner.work_dir, name, meta=meta, by_epoch=False)
        if self._max_iters <= self._iter < self.full_iters:
            self.stop_training = True
            self.val_begin = self._epoch + 1


@LOOPS.register_module()
class ExactIterLoop(ExactLoop, IterBasedTrainLoop):
    """MMEngine's iteration loop that continues with the images that would have come next, augmented alike."""

    def __init__(self, runner: Any, dataloader: Any, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, **kwargs)
        del self.dataloader_iterator  # MMEngine 0.10 has started its workers
        self.number_batches(endless=True)

    @names_lost_workers
    def run(self) -> Any:
        """Train from the current iteration to the last."""
        self.before()
        self.runner.call_hook("before_train_epoch")
        if self._iter < self._max_iters:
            one_stream = isinstance(self.batches.sampler, InfiniteSampler)
            start = (0, self._iter) if one_stream else divmod(self._iter, len(self.batches))
            batches = self.batches_from(*start)
            while self._iter < self._max_iters and not self.stop_training:
                self.runner.model.train()
                self.run_iter(next(batches))
                self._decide_current_val_interval()
                if self.validates_after(self._iter):
                    self.runner.val_loop.run()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def validates_after(self, iteration: int) -> bool:
        """Whether a validation follows this many finished iterations."""
        is_due = iteration % self.val_interval == 0 or iteration == self._max_iters
        return self.runner.val_loop is not None and iteration >= self.val_begin and is_due
