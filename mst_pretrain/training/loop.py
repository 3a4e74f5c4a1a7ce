"""MMEngine's Runner with safe checkpoints, and the pretraining loop: iterations, resumable to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.registry import LOOPS, RUNNERS
from mmengine.runner import BaseLoop, Runner
from mmengine.utils import apply_to
from torch.utils.data import DataLoader

from ..checkpoints.loading import load_model
from ..checkpoints.storage import INITIAL, LATEST, link_atomic, load_checkpoint, replacing
from ..data.checking import check_once
from ..data.replacement import Fault, decode
from ..data.sources import FileSource
from ..runtime.errors import UserError
from .hooks import ExactResumeHook
from .randomness import seed_all
from .signals import PatientDataLoader, stop_signals
from .watch import rescued

RESUMED = ("meta", "state_dict", "message_hub", "optimizer")  # what MMEngine's resume reads
EXACT = ("sampler",)  # and ours
IMAGES = "images.npz"  # the names of the run's files


@RUNNERS.register_module()
class MSTRunner(Runner):
    """Loads weights only, fails on a partial load, writes atomically, and keeps ``latest.pth`` current.

    Attributes:
        faults: Images that this process replaced in the present step; the loop puts them there.
        saved_iter: Finished iterations of the newest checkpoint of this run.
        unvalidated: Whether the resumed checkpoint was written in the middle of a validation.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.faults: list[Fault] = []
        self.saved_iter = -1
        self.unvalidated = False
        super().__init__(*args, **kwargs)

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """MMEngine's, with averages instead of histories, and a watch on signals and broken images."""
        ours = {"runtime_info": "LogAveragesHook", "watch": "WatchHook", "stop": "StopHook"}
        default = {name: {"type": hook} for name, hook in ours.items()}
        super().register_default_hooks({**default, **(hooks or {})})

    def train(self) -> torch.nn.Module:
        """MMEngine's, between steps of which SIGTERM and SIGUSR1 are obeyed."""
        with stop_signals():
            return super().train()

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        """MMEngine's, whose workers outlive the signals that their whole process group receives."""
        return PatientDataLoader.of(Runner.build_dataloader(*args, **kwargs))

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write ``out_dir/filename`` and then ``out_dir/latest.pth``; each is whole at every moment.

        Only the first process writes, and it needs no other one: a hook may call this there alone. The initial
        weights do not become the latest: an earlier run's result may still be there.
        """
        meta = kwargs["meta"] = {**(kwargs.get("meta") or {}), **self.own_meta()}
        self.saved_iter = meta.get("iter", -1)
        if is_main_process():  # the others have nothing to write
            whole = Path(out_dir, filename)
            with replacing(whole) as part:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)
            if filename != INITIAL:  # a new run must not replace an old one's result before it has one
                point_latest(whole)

    def own_meta(self) -> dict[str, str]:
        """What a checkpoint says of its backbone, and where the images were."""
        model: Any = self.model
        architecture: dict[str, str] = next(
            (part.architecture for part in model.modules() if hasattr(part, "architecture")), {}
        )
        data = self.cfg.get("data_root")
        return {**architecture, **({"data": str(data)} if data else {})}

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable | torch.device = "cpu",
        strict: bool = True,
        revise_keys: list[tuple[str, str]] | None = None,
    ) -> dict[str, Any]:
        """Read with ``weights_only=True`` and require every weight.

        Raises:
            UserError: The file cannot be read, or its weights are not this model's.
        """
        # Histories stay on the CPU; the weights go to the model's device when copied in.
        checkpoint = load_checkpoint(filename)
        wanted = RESUMED + EXACT if any(isinstance(hook, ExactResumeHook) for hook in self.hooks) else RESUMED
        missing = [part for part in wanted if self._resume and part not in checkpoint]
        if missing:
            raise UserError(
                f"{filename} cannot be resumed: it has no {', '.join(missing)}. To start a new run from its weights "
                "use --init-from (pretraining) or load_from (fine-tuning)."
            )
        self.unvalidated = self._resume and checkpoint["meta"].get("unvalidated", False)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model: Any = getattr(self.model, "module", self.model)
        load_model(model, checkpoint, filename, strict)
        self._has_loaded = True
        self.logger.info(f"Loaded {filename}: all {len(model.state_dict())} keys matched.")
        return checkpoint

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """As MMEngine's.

        Raises:
            UserError: The optimizer's parameters are not the checkpoint's.
        """
        try:
            super().resume(*args, **kwargs)
        except ValueError as error:
            raise UserError(
                f"cannot resume: {error}. Use the config of the first run; another one may freeze other parameters."
            ) from error

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale the learning rate linearly with the images of one optimizer step.

        MMEngine's own leaves out accumulated micro-batches. Where the scaling is off and the batch is another than
        the learning rate is for, a warning says so.
        """
        base = (auto_scale_lr or {}).get("base_batch_size")
        if base is None:
            return
        batch = step_batch(self, optim_wrapper)
        if not (auto_scale_lr or {}).get("enable"):
            if batch != base:
                self.logger.warning(
                    f"{batch} images per optimizer step, and the config's learning rate is for {base}. It is used as "
                    "it stands; --auto-scale-lr scales it linearly."
                )
            return
        logged = getattr(
            optim_wrapper, "base_param_settings", None
        )  # MMEngine's log prints its rate as base_lr
        for group in [*optim_wrapper.optimizer.param_groups, *([logged] if logged else [])]:
            group["lr"] *= batch / base
        self.logger.info(
            f"Learning rate scaled by {batch / base:g}: {batch} images per optimizer step, the config's is for {base}."
        )


def step_batch(runner: Runner, optim_wrapper: Any) -> int:
    """Images of one optimizer step, over all processes and accumulated micro-batches."""
    loader = runner._train_dataloader
    batch = loader["batch_size"] if isinstance(loader, dict) else loader.batch_size
    return int(batch) * get_world_size() * int(getattr(optim_wrapper, "_accumulative_counts", 1))


def point_latest(whole: Path) -> None:
    """Make ``latest.pth`` beside a checkpoint the same file, at once."""
    link_atomic(whole, whole.with_name(LATEST))


def build_runner(cfg: Config) -> Runner:
    """The runner of a config, ``MSTRunner`` unless it names another."""
    return RUNNERS.get(cfg.get("runner_type", "MSTRunner")).from_cfg(cfg)


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


@LOOPS.register_module()
class PretrainLoop(BaseLoop):
    """One iteration is one optimizer step, over ``accumulate`` micro-batches.

    Args:
        runner: The runner.
        dataloader: Its sampler must be a :class:`ResumableSampler`.
        max_epochs: Length of every schedule. An epoch is ``floor(images / global batch)`` iterations; 0 leaves the
            initial weights as the checkpoint. The sampler drops no image: an epoch's last batch is filled from the
            next one, so the run ends ``max_epochs * (images mod global batch)`` images before so many full passes.
        max_iters: Stop after so many iterations although the schedules span ``max_epochs``; without
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
        self.global_batch = self.dataloader.batch_size * get_world_size() * accumulate
        images = len(self.dataloader.dataset)
        self.iters_per_epoch = images // self.global_batch
        if self.iters_per_epoch == 0:
            raise UserError(
                f"{images} images are fewer than one global batch of {self.global_batch}. Add images to the data "
                "root or lower train_dataloader.batch_size."
            )
        if max_epochs is None and max_iters is None:
            raise UserError("train_cfg has neither max_epochs nor max_iters. Set one of them.")
        for name, length in (("max_epochs", max_epochs), ("max_iters", max_iters)):
            if length is not None and not 0 <= length < math.inf:
                raise UserError(f"train_cfg.{name} is {length}. Give 0 or more.")
        spans = [int(max_epochs * self.iters_per_epoch)] if max_epochs is not None else []
        limits = [max_iters] if max_iters is not None else []
        self.schedule_iters = (spans + limits)[0]
        self._max_iters = min(spans + limits)
        self._max_epochs = 1  # MMEngine: one long epoch
        self._epoch, self._iter = 0, 0
        self.indices: list[torch.Tensor | None] = []
        self.images_digest = ""  # of the names of files, where the images are files
        resumed = runner._resume and runner._load_from  # its images were looked at when the run began
        if getattr(self.dataloader.dataset, "check", False) and not resumed:
            check_once(self.dataloader.dataset.source)

    def image_names(self) -> list[str]:
        """The images of this process's last iteration, for a person to find them."""
        source = getattr(self.dataloader.dataset, "source", None)
        indices = [int(index) for batch in self.indices if batch is not None for index in batch]
        return [source.name(index) if source else str(index) for index in indices]

    @property
    def iter(self) -> int:
        """Finished iterations."""
        return self._iter

    @property
    def epoch(self) -> int:
        """Always 0: MMEngine counts an iteration loop as one epoch."""
        return self._epoch

    @property
    def max_iters(self) -> int:
        """Where the loop stops."""
        return self._max_iters

    @property
    def max_epochs(self) -> int:
        """Always 1."""
        return self._max_epochs

    def run(self) -> Any:
        """Train from the current iteration to the last."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        wrapper = self.runner.optim_wrapper
        wrapper._accumulative_counts = self.accumulate
        wrapper.initialize_count_status(
            self.runner.model, self._iter * self.accumulate, self._max_iters * self.accumulate
        )
        if self._iter == 0:
            self.runner.save_checkpoint(
                self.runner.work_dir, INITIAL, meta={"epoch": 0, "iter": 0}, by_epoch=False
            )
        if self._max_iters == 0 and is_main_process():
            point_latest(Path(self.runner.work_dir, INITIAL))
        source = getattr(self.dataloader.dataset, "source", None)
        if isinstance(source, FileSource):
            self.images_digest = source.paths.digest()
            if is_main_process():
                source.paths.save(Path(self.runner.work_dir, IMAGES))
        if getattr(self.dataloader.dataset, "seed", 0) is None:
            self.dataloader.dataset.seed = self.sampler.seed  # saved and resumed with the sampler
        if self._iter < self._max_iters:
            batches = rescued(self.runner, self.dataloader)
            while self._iter < self._max_iters:
                self.run_iter(batches)
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def next_batch(self, batches: Iterator[Any]) -> Any:
        """The next micro-batch; which images are in it, and which were replaced, is kept."""
        data = next(batches)
        self.indices.append(data.get("index"))
        self.runner.faults += decode(data.pop("faults", []))
        return data

    def run_iter(self, batches: Iterator[Any]) -> None:
        """One optimizer step, whose random numbers are its own."""
        seed_all(self.runner.seed, get_rank(), self._iter)
        self.runner.model.train()
        self.indices = []
        data = self.next_batch(batches)
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data)
        outputs: list[dict[str, Any]] = []
        for micro in range(self.accumulate):
            if micro:
                data = self.next_batch(batches)
            outputs.append(self.runner.model.train_step(data, optim_wrapper=self.runner.optim_wrapper))
        self.sampler.advance(self.global_batch)
        mean = {key: sum(output[key] for output in outputs) / self.accumulate for key in outputs[0]}
        mean = apply_to(mean, lambda value: isinstance(value, torch.Tensor), lambda value: value.detach())
        self.runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=data, outputs=mean)
        self._iter += 1
