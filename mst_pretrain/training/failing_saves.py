"""A checkpoint that cannot be written: the previous one stays, training goes on, and ends at the third in a row."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor

from ..runtime.atomic import link_atomic
from ..runtime.errors import UserError
from .keeping import KeepingHook
from .schedule_and_teacher import unwrap

IN_A_ROW = 3  # saves that fail before a run ends
LIMITED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
UNWRITABLE = (*LIMITED, *CLOSED, errno.EIO, errno.ESTALE)  # what a disk answers that takes nothing


class NotWritten(UserError):
    """A checkpoint could not be written; what was there before is unchanged."""


class Saves:
    """How the writings of one run went.

    Attributes:
        failed: Checkpoints in a row that could not be written.
        told: Other files that cannot be written, and of which a warning has told.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.told: set[str] = set()

    @contextmanager
    def spared(self, what: str) -> Iterator[None]:
        """Let no file beside the checkpoints end the training by a disk that takes nothing: one warning tells of it."""
        try:
            yield
            self.told.discard(what)
        except (OSError, UserError) as error:
            cause = disk_error(error)
            if cause is None or cause.errno not in UNWRITABLE:
                raise
            if what not in self.told:
                self.told.add(what)
                print_log(
                    f"{what} cannot be written ({cause.strerror}). Training goes on without.",
                    logger="current",
                    level=logging.WARNING,
                )


def disk_error(error: BaseException | None) -> OSError | None:
    """The system's error behind another one, if there is one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error


def not_written(path: Path, step: int, need: int, written: int, error: OSError, latest: Path) -> NotWritten:
    """What to say of a checkpoint that could not be written.

    Args:
        path: Of the checkpoint.
        step: Finished iterations.
        need: Bytes that it has.
        written: Bytes that the disk took before it refused.
        error: The system's.
        latest: What a resumed run continues from.
    """
    stays = (
        f" {latest} stays as it was."
        if latest.is_file()
        else " There was no checkpoint to continue from yet."
    )
    return NotWritten(
        f"No checkpoint of step {step:,} was written: {shortage(path, need, written, error)}{stays}"
    )


def shortage(path: Path, need: int, written: int, error: OSError) -> str:
    """Why a file does not fit, and how much is missing; a sentence with its period."""
    if error.errno in CLOSED:
        return f"{path.parent} is read-only ({error.strerror})."
    if error.errno not in LIMITED:
        return f"{path.parent} cannot be written ({error.strerror or error})."
    room, what = written, "your quota takes"
    if error.errno == errno.EFBIG:
        room, what = _largest_file(), "a file may have (ulimit -f)"
    elif error.errno == errno.ENOSPC:
        room, what = max(written, shutil.disk_usage(path.parent).free), "are free"
    least = max(need - room, 0)
    missing = f"at least {_size(least)} are missing" if least else "a little more is missing"
    return f"it needs {_size(need)} in {path.parent}, and {_size(room)} {what}: {missing}."


def _largest_file() -> int:
    import resource  # a limit of files there is only where this module is

    return resource.getrlimit(resource.RLIMIT_FSIZE)[0]


def _size(count: int) -> str:
    """Bytes for people: rounded up, so that what is said to be missing suffices."""
    unit, name = (1e9, "GB") if count >= 1e10 else (1e6, "MB") if count >= 1e7 else (1e3, "kB")
    return f"{-(-count // int(unit)):,} {name}"


def needed(runner: Any, path: Path, with_optimizer: bool) -> int:
    """Bytes of a checkpoint: of its tensors, or of the file of its kind that is there, which holds more than those."""
    count, like = bytes_of(unwrap(runner).state_dict()), [path]
    if with_optimizer:
        count += bytes_of(runner.optim_wrapper.state_dict())
        like.append(runner.files.latest)
    return max([count, *(file.stat().st_size for file in like if file.is_file())])


def bytes_of(state: Any) -> int:
    """Bytes of all tensors of nested dictionaries and lists."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(bytes_of(part) for part in parts)


def attempt(runner: Any, step: int, save: Callable[[], None]) -> bool:
    """Save; where that fails, go on as long as a later save can succeed.

    Args:
        runner: Whose ``saves`` count.
        step: Finished iterations of what is saved.
        save: May raise :class:`NotWritten`, in the first process alone.

    Returns:
        Whether it was saved.

    Raises:
        UserError: It was the last save of the run, or the third in a row that failed.
    """
    before = runner.saves.failed
    try:
        save()
        if runner.saves.failed == before:  # else one failed within
            runner.saves.failed = 0
        return True
    except (OSError, UserError) as error:
        cause = disk_error(error)
        if cause is None:
            raise
        runner.saves.failed += 1
        failed, said = runner.saves.failed, str(error)
        if not isinstance(error, NotWritten):
            said = f"{cause.filename or runner.work_dir} cannot be written ({cause.strerror or cause})."
        remedy = "Free some space, or lift the limit"
        if step >= runner.max_iters or failed >= IN_A_ROW:
            why = f"{failed} in a row failed" if failed >= IN_A_ROW else "No later one would come"
            raise UserError(f"{said} {why}. {remedy}, then continue with --resume. [R11]") from error
        runner.logger.warning(
            f"{said} {remedy}: training goes on, and stops when {IN_A_ROW} in a row have failed "
            f"(now {failed}). [R11]"
        )
        return False


class SparingHook(KeepingHook):
    """MMEngine's, which loses no checkpoint for one that was not written."""

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        hub, last = runner.message_hub, self.__dict__.get("last_ckpt")

        def save() -> None:
            super(SparingHook, self)._save_checkpoint_with_step(runner, step, meta)

        if attempt(runner, meta["iter"], save):
            return
        self.__dict__["last_ckpt"] = last
        hub.update_info("last_ckpt", last or "")

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, Any]) -> None:
        """MMEngine removes the best one of before first: it has a second name until the new one is there."""
        if not self.save_best:
            return
        single = len(self.key_indicators) == 1
        paths = [self.best_ckpt_path] if single else list(self.best_ckpt_path_dict.values())
        names = {Path(path): Path(f"{path}.kept") for path in paths if path and is_main_process()}
        info = {key: value for key, value in runner.message_hub.runtime_info.items() if "best" in key}
        state = self.best_ckpt_path if single else dict(self.best_ckpt_path_dict)

        def save() -> None:
            for path, kept in names.items():
                if path.is_file():
                    link_atomic(path, kept)
            super(SparingHook, self)._save_best_checkpoint(runner, metrics)

        if not attempt(runner, runner.iter, save):
            for path, kept in names.items():
                if kept.is_file():
                    kept.replace(path)
            new = [key for key in runner.message_hub.runtime_info if "best" in key and key not in info]
            for key in new:
                runner.message_hub.pop_info(key)
            for key, value in info.items():
                runner.message_hub.update_info(key, value)
            setattr(self, "best_ckpt_path" if single else "best_ckpt_path_dict", state)
        for kept in names.values():
            kept.unlink(missing_ok=True)


@HOOKS.register_module()
class SparingCheckpointHook(SparingHook):
    """What MMEngine's CheckpointHook of a config becomes."""
