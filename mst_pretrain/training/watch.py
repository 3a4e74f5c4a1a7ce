"""After every step all processes look together at what one of them met: a signal to stop, broken images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..data.broken_images import Fault, decode
from ..data.files import first_of
from ..runtime.atomic import replacing
from ..runtime.errors import Stopped, UserError
from .agreement import Agreement
from .failing_saves import NotWritten
from .meeting import waiting_time
from .memory import lost_worker
from .patient_loader import end_workers
from .rank_watch import DONE, FAILED, SILENCE, RankWatch
from .schedule_and_teacher import broken_weight
from .signals import begin_steps, stop_requested

BAD_IMAGES = "bad_images.txt"
STOPPED = "stopped.pth"


@HOOKS.register_module()
class WatchHook(Hook):
    """Shares what each process met: whether it was asked to stop, and which images were replaced.

    Args:
        max_bad_share: The run stops when more than this share of the images could not be used, 0 to 1.
        silence: Of several processes, one that gives no sign of life for so many seconds takes the job down.

    Attributes:
        stopping: Whether a process was asked to stop.
        too_many: Whether more images than ``max_bad_share`` could not be used.
    """

    priority = "ABOVE_NORMAL"  # before a checkpoint, which holds the list of images

    def __init__(self, max_bad_share: float = 0.01, silence: float = SILENCE) -> None:
        if not 0 <= max_bad_share <= 1:
            raise UserError(
                f"default_hooks.watch.max_bad_share is {max_bad_share}. Give a share from 0 to 1."
            )
        self.max_bad_share = max_bad_share
        self.bad: dict[int, Fault] = {}
        self.untold: list[Fault] = []  # met by this process, not yet known to the others
        self.stopping = self.too_many = False
        self.silence = silence
        self.signs: RankWatch | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """A resumed run goes on counting."""
        checkpoint["bad_images"] = [list(fault) for fault in self.bad.values()]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take over the list of a resumed run."""
        if runner._resume:
            self.bad = {fault[0]: Fault(*fault) for fault in checkpoint.get("bad_images", [])}

    def before_train(self, runner: Runner) -> None:
        """Start the agreement of the processes; write the list as it was at the resumed step, if it is short enough."""
        self.agree = Agreement(next(runner.model.parameters()).device)
        dataset = runner.train_dataloader.dataset
        if self.bad and hasattr(dataset, "is_usable"):
            still = [{number: dataset.is_usable(number) for number in self.bad} if is_main_process() else {}]
            broadcast_object_list(still)
            self.bad = {number: fault for number, fault in self.bad.items() if not still[0][number]}
        self._write(runner)
        if len(self.bad) > self.max_bad_share * len(dataset):
            raise UserError(self.refusal(runner))
        self.signs = RankWatch.begin(self.silence, waiting_time(runner.cfg), runner.work_dir)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """The images are there."""
        self._moved(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A validation goes on."""
        self._moved(runner)

    def _moved(self, runner: Runner) -> None:
        if self.signs is not None:
            self.signs.moved(runner.iter)

    def end(self, finished: bool) -> None:
        """No sign of life is given any more: the training is over, or ends with an error."""
        if self.signs is not None:
            self.signs.stop(DONE if finished else FAILED)
            self.signs = None

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Share what happened in this step."""
        self._moved(runner)
        faults, runner.faults = runner.faults, []
        self.untold += faults
        stop, bad = self.agree([float(stop_requested()), float(len(faults))])
        if bad:
            self._tell(runner)
        self.stopping |= stop > 0

    def _tell(self, runner: Runner) -> None:
        """All processes come here together."""
        told = [Fault(*fault) for faults in all_gather_object(self.untold) for fault in faults]
        self.untold = []
        new = {fault.number: fault for fault in told if fault.number not in self.bad}
        if not new:
            return
        self.bad |= new
        self._write(runner)
        images = len(runner.train_dataloader.dataset)
        self.too_many = len(self.bad) > self.max_bad_share * images
        runner.logger.warning(
            f"Step {runner.iter + 1}: {len(new)} images could not be used and were replaced by others: "
            f"{first_of([fault.name for fault in new.values()])}. In all {len(self.bad)} of {images} images "
            f"({len(self.bad) / images:.2%}); names and reasons: {Path(runner.work_dir, BAD_IMAGES)}"
        )

    def _write(self, runner: Runner) -> None:
        listing, lines = Path(runner.work_dir, BAD_IMAGES), []
        for fault in sorted(self.bad.values()):
            name = fault.name.replace("\n", "\\n").replace("\t", "\\t")
            lines.append(f"{name}\t{' '.join(fault.reason.split())}\n")
        if is_main_process() and not lines:
            listing.unlink(missing_ok=True)  # of an earlier run
        elif is_main_process():
            with runner.saves.spared(str(listing)), replacing(listing) as part:
                part.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")

    def refusal(self, runner: Runner) -> str:
        """Why a run with too many unusable images does not go on."""
        images = len(runner.train_dataloader.dataset)
        return (
            f"{len(self.bad)} of {images} images cannot be used, more than a share of {self.max_bad_share:g}: "
            f"{first_of([fault.name for fault in sorted(self.bad.values())])}. Names and reasons: "
            f"{Path(runner.work_dir, BAD_IMAGES)}. Put whole images under these names, or allow more with "
            "--cfg-options default_hooks.watch.max_bad_share=SHARE."
        )


@HOOKS.register_module()
class StopHook(Hook):
    """Ends a run that was asked to stop, or that has too many broken images, with a checkpoint."""

    priority = "LOWEST"  # the step is whole: schedules have moved, a checkpoint that was due is written

    def before_train(self, runner: Runner) -> None:
        """Find the hook that knows; from now on signals wait for a step."""
        self.watch = next(hook for hook in runner.hooks if isinstance(hook, WatchHook))
        self.saved_in_validation = False
        begin_steps()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End here, with a checkpoint, if it must be and no accumulated micro-batch waits for its optimizer step."""
        stopping = self.watch.stopping and runner.iter + 1 < runner.max_iters  # else the run is done anyway
        step_is_whole = getattr(runner.optim_wrapper, "should_update", lambda: True)
        if not (stopping or self.watch.too_many) or not step_is_whole():
            return
        due = getattr(runner.train_loop, "validates_after", None)
        unvalidated = due is not None and due(runner.iter + 1)
        written = save_stopped(runner, runner.iter + 1, unvalidated)
        if self.watch.too_many:
            raise UserError(f"{self.watch.refusal(runner)} {written}")
        raise Stopped(f"stopped after step {runner.iter + 1}. {written}")

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A validation may outlast the time that a batch system leaves: write a checkpoint at once.

        One process ends here; several end together after the next training step.
        """
        if not stop_requested() or self.saved_in_validation:
            return
        self.saved_in_validation = True
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            return  # it has exchanged the weights for the validation
        written = save_stopped(runner, runner.iter, unvalidated=True) if is_main_process() else ""
        if get_world_size() == 1:
            raise Stopped(f"stopped in the validation after step {runner.iter}. {written}")


def save_stopped(runner: Any, iteration: int, unvalidated: bool = False) -> str:
    """Write ``stopped.pth`` of the finished iterations unless their checkpoint is there; say what can be resumed.

    With ``unvalidated`` the resumed run begins with a validation.
    """
    latest = runner.files.latest
    if runner.saved_iter != iteration or unvalidated:
        if broken := broken_weight(runner):
            return (
                f"No checkpoint was written, {broken} is not finite. What was written before stays: {latest}."
            )
        meta = {"epoch": runner.epoch, "iter": iteration, "unvalidated": unvalidated}
        try:
            runner.save_checkpoint(runner.work_dir, STOPPED, meta=meta, by_epoch=False)
        except NotWritten as error:
            return f"{error} Free some space, then continue with --resume. [R11]"
    return f"Continue from {latest} with --resume."


def rescued(runner: Any, batches: Iterable[Any]) -> Iterator[Any]:
    """Pass batches on without their ``faults``, which the runner gets.

    Where none can be read any more, the steps made so far are saved before the run ends.
    """
    # At once: a loader draws a random number here, before the first step sets its seed.
    iterator = iter(batches)

    def passed_on() -> Iterator[Any]:
        while True:
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except UserError as error:
                if runner.iter == 0:
                    raise
                raise UserError(f"{error} {save_stopped(runner, runner.iter)}") from error
            except (RuntimeError, ConnectionError, EOFError) as error:
                said = lost_worker(error, runner.train_dataloader.num_workers)
                if not said:
                    raise
                end_workers(runner.train_dataloader)
                if runner.iter == 0:
                    raise UserError(said) from error
                raise UserError(f"{said} {save_stopped(runner, runner.iter)}") from error
            runner.pace.wait(time.monotonic() - asked)
            runner.faults += decode(batch.pop("faults", []))
            yield batch

    return passed_on()
