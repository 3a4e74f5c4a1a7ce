"""The pretraining loop: iterations, resumable to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, Runner

from ..checkpoints.storage import INITIAL
from ..data.checking import check_once
from ..data.device_batches import crops_of
from ..data.multicrop import MultiCrop
from ..data.sources import FileSource
from ..runtime.atomic import link_atomic
from ..runtime.errors import UserError
from .feature_watch import FeatureWatchHook
from .memory import named_memory, names_lost_workers
from .randomness import seed_all
from .runner import MSTRunner
from .schedule_and_teacher import unwrap
from .watch import rescued

IMAGES = "images.npz"  # the file in which a run keeps the list of its images


def with_names(dataloader: Any, runner: Runner) -> Any:
    """The loader's config; of a run that is resumed with the list of its files, where that lies by its checkpoint."""
    if not (runner._resume and runner._load_from and isinstance(dataloader, dict)):
        return dataloader
    names, dataset = Path(runner._load_from).with_name(IMAGES), dataloader["dataset"]
    root = Path(dataset.get("data_root", ""))
    of_files = dataset.get("type") == "UnlabelledImages" and (root.is_dir() or root.suffix == ".txt")
    if not (of_files and names.is_file()):
        return dataloader
    return {**dataloader, "dataset": {**dataset, "names": str(names)}}


def run_length(
    images: int, global_batch: int, max_epochs: float | None, max_iters: int | None
) -> tuple[int, int, int]:
    """Iterations of an epoch, of the schedules, and of the run; see :class:`PretrainLoop`.

    Raises:
        UserError: Neither length is given, or the data set is smaller than one global batch.
    """
    iters_per_epoch = images // global_batch
    if iters_per_epoch == 0:
        raise UserError(
            f"{images} images are fewer than one global batch of {global_batch}. Add images to the data "
            "root or lower train_dataloader.batch_size."
        )
    if max_epochs is None and max_iters is None:
        raise UserError("train_cfg has neither max_epochs nor max_iters. Set one of them.")
    spans = [int(max_epochs * iters_per_epoch)] if max_epochs is not None else []
    limits = [max_iters] if max_iters is not None else []
    schedule_iters = (spans + limits)[0]
    return iters_per_epoch, schedule_iters, min(spans + limits)


@LOOPS.register_module()
class PretrainLoop(BaseLoop):
    """One iteration is one optimizer step, over ``accumulate`` micro-batches.

    Args:
        runner: The runner.
        dataloader: Its sampler must be a :class:`ResumableSampler`.
        max_epochs: Length of every schedule. An epoch is ``floor(images / global batch)`` iterations; 0 leaves the
            initial weights as the checkpoint. The sampler drops no image: an epoch's last batch is filled from the
            next one, so the run ends ``max_epochs * (images mod global batch)`` images before that many full passes.
        max_iters: Stop after this many iterations although the schedules span ``max_epochs``; without
            ``max_epochs`` it is the length of the schedules too.
        accumulate: Micro-batches per iteration.

    Raises:
        UserError: Neither length is given, the data set is smaller than one global batch, or an image is truncated.
    """

    def __init__(
        self,
        runner: MSTRunner,
        dataloader: Any,
        max_epochs: float | None = None,
        max_iters: int | None = None,
        accumulate: int = 1,
    ) -> None:
        if accumulate < 1:
            raise UserError(f"train_cfg.accumulate is {accumulate}. Give 1 or more.")
        super().__init__(runner, with_names(dataloader, runner))
        self.sampler = self.dataloader.sampler
        self.accumulate = accumulate
        self.per_process = int(self.dataloader.batch_size)
        self.global_batch = self.per_process * get_world_size() * accumulate
        self.iters_per_epoch, self.schedule_iters, self.max_iters = run_length(
            len(self.dataloader.dataset), self.global_batch, max_epochs, max_iters
        )
        self.epoch, self.max_epochs = 0, 1  # for MMEngine one long epoch
        self._iter = 0
        self.indices: list[torch.Tensor | None] = []
        crops, model = getattr(self.dataloader.dataset, "crops", None), unwrap(runner)
        if isinstance(crops, MultiCrop) and hasattr(model, "crop_units"):
            crops.check(*model.crop_units)
        self.source = getattr(self.dataloader.dataset, "source", None)
        resumed = runner._resume and runner._load_from  # its images were looked at when the run began
        if self.source is not None and getattr(self.dataloader.dataset, "check", False) and not resumed:
            check_once(self.source.check)

    def image_names(self) -> list[str]:
        """The images of this process's last iteration, for a person to find them."""
        indices = [int(index) for batch in self.indices if batch is not None for index in batch]
        return [self.source.name(index) if self.source else str(index) for index in indices]

    @cached_property
    def data(self) -> dict[str, Any]:
        """Number of images, and the digest of their names where they are files."""
        digest = self.source.paths.digest() if isinstance(self.source, FileSource) else ""
        return {"images": len(self.dataloader.dataset), "sha256": digest}

    @property
    def iter(self) -> int:
        """Finished iterations."""
        return self._iter

    @names_lost_workers
    def run(self) -> Any:
        """Train from the current iteration to the last."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        wrapper = self.runner.optim_wrapper
        wrapper._accumulative_counts = self.accumulate
        wrapper.initialize_count_status(
            self.runner.model, self._iter * self.accumulate, self.max_iters * self.accumulate
        )
        files = self.runner.files
        if self._iter == 0:
            self.runner.save_checkpoint(
                self.runner.work_dir, INITIAL, meta={"epoch": 0, "iter": 0}, by_epoch=False
            )
        if self.max_iters == 0 and is_main_process():
            link_atomic(files.initial, files.latest)
        if isinstance(self.source, FileSource) and is_main_process():
            files.checkpoints.mkdir(exist_ok=True)
            self.source.paths.save(files.checkpoints / IMAGES)
        batches: Iterator[Any] = iter(())
        if self._iter < self.max_iters:
            self.sampler.position = self._iter * self.global_batch
            device = next(self.runner.model.parameters()).device
            batches = rescued(self.runner, crops_of(self.dataloader, device, self.runner.logger.info))
        if self.runner.unvalidated:  # also after the last step
            self.measure()
        while self._iter < self.max_iters:
            self.run_iter(batches)
            if self.validates_after(self._iter):
                self.measure()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    @cached_property
    def watch(self) -> FeatureWatchHook | None:
        """What measures the features, if anything does."""
        return next((hook for hook in self.runner.hooks if isinstance(hook, FeatureWatchHook)), None)

    def validates_after(self, iteration: int) -> bool:
        """Whether the features are measured after this many finished iterations."""
        return self.watch is not None and self.watch.is_due(iteration)

    def measurements_left(self, step: int) -> int:
        """Measurements after the iterations that follow ``step``."""
        return 0 if self.watch is None else self.watch.due_between(step, self.max_iters)

    def measure(self) -> None:
        """Measure the features."""
        if self.watch is not None:
            self.watch.measure(self.runner)

    def run_iter(self, batches: Iterator[Any]) -> None:
        """One optimizer step, whose random numbers are its own."""
        seed_all(self.runner.seed, get_rank(), self._iter)
        self.runner.model.train()
        self.indices = []
        outputs: list[dict[str, Any]] = []
        for micro in range(self.accumulate):
            data = next(batches)
            self.indices.append(data.get("index"))
            if micro == 0:
                self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data)
            with named_memory(self.runner, data):
                outputs.append(self.runner.model.train_step(data, optim_wrapper=self.runner.optim_wrapper))
        mean = {key: sum(output[key].detach() for output in outputs) / self.accumulate for key in outputs[0]}
        self.runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=data, outputs=mean)
        self._iter += 1
