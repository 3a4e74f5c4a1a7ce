"""MMEngine's Runner with safe, atomic checkpoints and signals that are obeyed between steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from logging import FileHandler
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..checkpoints.loading import load_model
from ..checkpoints.storage import INITIAL, load_checkpoint
from ..data.broken_images import Fault
from ..runtime.atomic import link_atomic, replacing
from ..runtime.errors import UserError
from ..runtime.run_files import BEST, CONFIG, EVALUATION, LATEST, LOGGERS, RunFiles
from ..runtime.work_dir import need_space
from .console import leave_bars, show_only_lines, warnings_to
from .failing_saves import Saves, disk_error, needed, not_written
from .folder_hooks import in_run_folder, outside_run_folder
from .loggers import with_loggers
from .pace import Pace
from .patient_loader import PatientDataLoader
from .resume import RUN, check_continues, describe, plain, recorded, without_weights
from .schedule_and_teacher import broken_weight, last_good, unwrap
from .signals import stop_signals
from .watch import WatchHook

MIXED = "AmpOptimWrapper"
RESUMED = ("meta", "state_dict", "message_hub", "optimizer")  # what MMEngine's resume reads


@RUNNERS.register_module()
class MSTRunner(Runner):
    """Loads weights only, fails on a partial load, writes atomically, and keeps ``latest.pth`` current.

    Attributes:
        faults: Images that this process replaced in the present step; the loop puts them there.
        saved_iter: Finished iterations of the newest checkpoint of this run.
        unvalidated: Whether the resumed checkpoint was written in the middle of a validation.
        given: The config, as :func:`plain` has it.
        resumed: What the resumed checkpoint tells of its first run, see :func:`recorded`; else None.
        files: Where the run's files lie.
        pace: Measures its steps and pauses.
        saves: How its checkpoints were written.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.faults: list[Fault] = []
        self.saved_iter = -1
        self.unvalidated = False
        self.resumed: dict[str, Any] | None = None
        work_dir = kwargs["work_dir"] if "work_dir" in kwargs else args[1]
        self.files = RunFiles.of(kwargs.get("cfg") or {}, Path(work_dir).absolute())
        self.pace, self.saves, self.stop_warnings = Pace(), Saves(), lambda: None
        super().__init__(*args, **kwargs)
        self.given = plain(self.cfg)

    def build_model(self, model: Any) -> torch.nn.Module:
        """MMEngine's; the resumed weights replace all others, whose files may be gone."""
        resumes = self._resume and self._load_from
        return super().build_model(without_weights(model) if resumes else model)

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """MMEngine's, with averages instead of histories, and a watch on signals and broken images."""
        ours = {"runtime_info": "LogAveragesHook", "watch": "WatchHook", "stop": "StopHook"}
        default: dict[str, Any] = {name: {"type": hook} for name, hook in ours.items()}
        pretrains = (self.cfg.get("train_cfg") or {}).get("type") == "PretrainLoop"
        if pretrains and self.cfg.get(EVALUATION) is not None:
            default[EVALUATION] = {"type": "FeatureWatchHook", **self.cfg[EVALUATION]}
        given = {**default, **(hooks or {})}
        super().register_default_hooks((in_run_folder if self.files.tidy else outside_run_folder)(given))

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """MMEngine's; its file is UTF-8 whatever the locale, and takes names that are not."""
        if self.files.tidy:
            with suppress(OSError):  # the folder that MMEngine has just made for this start
                Path(self.log_dir).rmdir()
            self._log_dir = str(self.files.root)
            kwargs["log_file"] = str(self.files.log)
        logger = super().build_logger(*args, **kwargs)
        if self.files.tidy:
            show_only_lines(logger)
            self.stop_warnings = warnings_to(logger)
        for handler in logger.handlers:
            if isinstance(handler, FileHandler) and isinstance(handler.stream, TextIOWrapper):
                handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
                # a full disk: logging would print a traceback for every line, and the checkpoints tell of it
                vars(handler)["handleError"] = lambda record: None
        return logger

    def dump_config(self) -> None:
        """Not yet, where MMEngine asks for it: a run that is refused must not replace what another one has written."""

    def load_or_resume(self) -> None:
        """MMEngine's; the config is saved once it is known to fit what is there."""
        super().load_or_resume()
        if not self.files.tidy:
            super().dump_config()
        elif is_main_process() and not self._has_config():
            self.cfg.dump(self.files.root / CONFIG)

    def _has_config(self) -> bool:
        """Whether the run folder holds the config already: its user's own, or that of the run that is resumed."""
        own, file = self.files.root / CONFIG, self.cfg.filename
        return own.is_file() and (self._resume or (file is not None and Path(file).absolute() == own))

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """MMEngine's, with the config's ``loggers``; a run folder has its numbers in ``metrics.jsonl`` by itself."""
        loggers = self.cfg.get(LOGGERS) or []
        if visualizer is None and (self.files.tidy or loggers):
            local = [] if self.files.tidy else [{"type": "mmengine.LocalVisBackend"}]
            visualizer = {"type": "mmengine.Visualizer", "vis_backends": local}
        if loggers and isinstance(visualizer, dict):
            visualizer = with_loggers(visualizer, loggers, self.files.root, lambda: self._resume)
        built = super().build_visualizer(visualizer)
        vars(built)["add_scalars"] = partial(self._add_scalars, built.add_scalars)
        return built

    def _add_scalars(self, add: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """A curve that cannot be written ends no training."""
        with self.saves.spared(f"{self.log_dir}: the curves"):
            add(*args, **kwargs)

    def train(self) -> torch.nn.Module:
        """MMEngine's, between steps of which SIGTERM and SIGUSR1 are obeyed; refused where no checkpoint fits."""
        need_space(
            self.work_dir, sum(weight.numel() * weight.element_size() for weight in self.model.parameters())
        )
        finished = False
        try:
            with stop_signals():
                model = super().train()
            finished = True
            return model
        finally:
            for hook in self.hooks:
                if isinstance(hook, WatchHook):
                    hook.end(finished)
            self.stop_warnings()
            leave_bars(self.logger)

    @staticmethod
    def build_dataloader(
        dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """MMEngine's, whose workers outlive the signals that their whole process group receives.

        A data set whose ``seed`` is None gets the run's. What a device decodes is collated without padding.
        """
        dataset = dataloader["dataset"] if isinstance(dataloader, dict) else None
        if isinstance(dataset, dict) and dataset.get("seed", 0) is None:
            dataloader = {**dataloader, "dataset": {**dataset, "seed": seed}}
        if isinstance(dataset, dict) and dataset.get("decode") == "device":
            dataloader = {**dataloader, "collate_fn": {"type": "collate_for_device"}}
        return PatientDataLoader.of(Runner.build_dataloader(dataloader, seed, diff_rank_seed))

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write ``out_dir/filename`` and then ``out_dir/latest.pth``; each is whole at every moment.

        In a run folder ``checkpoints/last.pth`` is both; ``initial.pth`` and ``best.pth`` lie beside it.
        Only the first process writes, and it needs no other one: a hook may call this there alone. The initial
        weights do not become the latest: an earlier run's result may still be there.

        Raises:
            UserError: A weight is not finite; what was written before stays.
            NotWritten: The disk takes no more.
        """
        meta = kwargs.pop("meta", None) or {}
        if broken := broken_weight(self):
            raise UserError(
                f"No checkpoint {Path(out_dir, filename)} was written: {broken} is not finite. {last_good(self)} Lower "
                "optim_wrapper.optimizer.lr, then continue with --resume, or start again."
            )
        whole = self.files.checkpoint(out_dir, filename)
        if is_main_process():  # the others have nothing to write
            kwargs["meta"] = {**meta, **self.own_meta(), RUN: {**describe(self), **(self.resumed or {})}}
            # a new run must not replace an old one's result before it has one
            linked = filename not in (INITIAL, BEST) and not self.files.tidy
            self._write(whole, linked, meta.get("iter", 0), *args, **kwargs)
        if whole.name != BEST:
            self.saved_iter = meta.get("iter", -1)

    def _write(self, whole: Path, linked: bool, step: int, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint, ``linked`` as the latest, in the place of the one that is there.

        Raises:
            NotWritten: The disk takes no more.
        """
        written = 0
        try:
            with self.pace.pause(whole.name if self.files.tidy else "checkpoint"), replacing(whole) as part:
                try:
                    super().save_checkpoint(str(whole.parent), part.name, *args, **kwargs)
                except OSError:
                    written = part.stat().st_size if part.is_file() else 0
                    raise
            if linked:
                point_latest(whole)
        except UserError as error:
            cause = disk_error(error)
            if cause is None:
                raise
            need = needed(self, whole, kwargs.get("save_optimizer", True))
            raise not_written(whole, step, need, written, cause, self.files.latest) from error

    def own_meta(self) -> dict[str, str]:
        """What a checkpoint says of its backbone, and where the images were."""
        model: Any = self.model
        found = (part.architecture for part in model.modules() if hasattr(part, "architecture"))
        data = self.cfg.get("data_root")
        return {**next(found, {}), **({"data": str(data)} if data else {})}

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable | torch.device = "cpu",
        strict: bool = True,
        revise_keys: list[tuple[str, str]] | None = None,
    ) -> dict[str, Any]:
        """Read with ``weights_only=True``; refuse other weights than this model's, and to resume another run."""
        # Histories stay on the CPU; the weights go to the model's device when copied in.
        checkpoint = load_checkpoint(filename)
        missing = [part for part in RESUMED if self._resume and part not in checkpoint]
        if missing:
            raise UserError(
                f"{filename} cannot be resumed: it has no {', '.join(missing)}. To start a new run from its weights "
                "use --init-from (pretraining) or load_from (fine-tuning)."
            )
        if self._resume:
            self.resumed = recorded(checkpoint)
            check_continues(filename, self.resumed, describe(self))
            self.unvalidated = checkpoint["meta"].get("unvalidated", False)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model: Any = unwrap(self)
        load_model(model, checkpoint, filename, strict)
        self._has_loaded = True
        self.logger.info(f"Loaded {filename}: all {len(model.state_dict())} keys matched.")
        return checkpoint

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """As MMEngine's; a seed that the first run drew becomes the sampler's and the data set's too."""
        loader, drawn = self.train_dataloader, self.seed
        try:
            super().resume(*args, **kwargs)
            for part in (loader.batch_sampler.sampler, loader.dataset):
                if getattr(part, "seed", None) == drawn:
                    part.seed = self.seed
        except ValueError as error:
            raise UserError(
                f"cannot resume: {error}. Use the config of the first run; another one may freeze other parameters."
            ) from error

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """MMEngine's; without a GPU its AmpOptimWrapper is a plain one in float32, and the log says which it is."""
        if isinstance(optim_wrapper, dict) and optim_wrapper.get("type") == MIXED:
            if torch.cuda.is_available():
                dtype = optim_wrapper.get("dtype") or "float16"
                self.logger.info(f"The forward pass runs in {dtype} with loss scaling: {MIXED}.")
            else:
                plainly = {k: v for k, v in optim_wrapper.items() if k not in ("dtype", "loss_scale")}
                optim_wrapper = {**plainly, "type": "OptimWrapper"}
                self.logger.info(
                    f"The forward pass runs in float32: {MIXED} needs a GPU and none is visible."
                )
        return super().build_optim_wrapper(optim_wrapper)

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale every learning rate linearly with the images of one optimizer step.

        MMEngine's own leaves out accumulated micro-batches. Where it is not enabled and the step is not of
        ``base_batch_size`` images, a warning says so.
        """
        given = auto_scale_lr or {}
        base, batch = given.get("base_batch_size"), step_batch(self, optim_wrapper)
        if base is None or (batch == base and not given.get("enable", False)):
            return
        words = f"{batch} images per optimizer step, and the config's learning rate is for {base}."
        if not given.get("enable", False):
            self.logger.warning(f"{words} It is used as it stands; --auto-scale-lr scales it linearly.")
            return
        # MMEngine's log prints the rate of these settings as base_lr
        logged = getattr(optim_wrapper, "base_param_settings", None)
        for group in [*optim_wrapper.optimizer.param_groups, *([logged] if logged else [])]:
            group["lr"] *= batch / base
        self.logger.info(f"{words} It is scaled by {batch / base:g}.")


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
