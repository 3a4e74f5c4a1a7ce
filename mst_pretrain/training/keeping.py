"""Which checkpoints of a run stay: the last ones and one of every so many epochs; the best one is a file of its own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from ..checkpoints.whole import damage
from ..runtime.errors import UserError

KEPT = "kept_checkpoints"  # of the message hub, so that a resumed run knows which files are its own


class KeepingHook(CheckpointHook):
    """MMEngine's, which deletes an older checkpoint only once the new one is on disk and was read back whole.

    It deletes only what this run has written, resumed or not. All other arguments are MMEngine's.

    Args:
        max_keep_ckpts: How many of the last checkpoints stay; all of them if it is not positive.
        keep_every_epochs: The first checkpoint after every so many epochs stays for good; None: none does.

    Raises:
        UserError: ``keep_every_epochs`` is not a positive whole number.
    """

    def __init__(
        self, *args: Any, max_keep_ckpts: int = -1, keep_every_epochs: int | None = None, **kwargs: Any
    ) -> None:
        every = keep_every_epochs
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise UserError(
                f"default_hooks.checkpoint.keep_every_epochs is {every!r}. Give a whole number of epochs, or None."
            )
        super().__init__(*args, max_keep_ckpts=-1, **kwargs)
        self.keep, self.every = max_keep_ckpts, every

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        name = self.filename_tmpl.format(step)
        before = self.note(runner, name, meta["iter"])
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        except Exception:
            runner.message_hub.update_info(KEPT, before)
            raise
        self.prune(runner, Path(self.out_dir), Path(self.out_dir, name))

    def note(self, runner: Any, name: str, iteration: int) -> dict[str, Any]:
        """Add a checkpoint that is about to be written to those of this run, as it will say itself.

        Returns:
            What was noted before, for the case that it cannot be written.
        """
        before = dict(runner.message_hub.runtime_info.get(KEPT, {"last": [], "for_good": [], "iter": 0}))
        last = [*(one for one in before["last"] if one != name), name]
        for_good = list(before["for_good"])
        if self.every is not None:
            loop = runner.train_loop
            span = self.every * int(getattr(loop, "iters_per_epoch", 0) or len(loop.dataloader))
            if iteration // span > before["iter"] // span:
                for_good.append(name)
        noted = {"last": last, "for_good": for_good, "iter": iteration}
        runner.message_hub.update_info(KEPT, noted)
        return before

    def prune(self, runner: Any, folder: Path, written: Path) -> None:
        """Delete what is no longer among the last ones, if the one just ``written`` is whole."""
        noted = dict(runner.message_hub.get_info(KEPT))
        if self.keep < 1 or len(noted["last"]) <= self.keep:
            return
        if is_main_process():
            if fault := damage(written):
                runner.logger.warning(
                    f"{written} is damaged ({fault}), just after it was written: the disk may be failing. The older "
                    "checkpoints stay."
                )
                return
            for name in noted["last"][: -self.keep]:
                if name not in noted["for_good"]:
                    with suppress(OSError):  # a disk that takes nothing: the checkpoints tell of that
                        (folder / name).unlink(missing_ok=True)
        runner.message_hub.update_info(KEPT, {**noted, "last": noted["last"][-self.keep :]})
