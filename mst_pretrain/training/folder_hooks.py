"""The checkpoint hooks of a run folder, and which hooks a config's own ones become there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from ..runtime.atomic import link_atomic
from ..runtime.errors import UserError
from .failing_saves import SparingCheckpointHook, attempt
from .health import HealthyCheckpointHook
from .keeping import KEPT, KeepingHook

KEPT_BY_LOG = ("save_best", "rule")  # arguments of the checkpoint hook that the log's hook takes over


class _OneLast(KeepingHook):
    """One ``checkpoints/last.pth`` that is replaced; the ones before it that stay are ``iter_N.pth`` beside it."""

    def __init__(self, *args: Any, max_keep_ckpts: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, max_keep_ckpts=max_keep_ckpts, **kwargs)

        self.held: tuple[int, int] | None = None  # the file last.pth that this hook has written

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        self.last_ckpt = str(runner.files.latest)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        options = {
            "save_optimizer": self.save_optimizer,
            "save_param_scheduler": self.save_param_scheduler,
            "by_epoch": self.by_epoch,
        }
        name = self.filename_tmpl.format(step)
        save = partial(runner.save_checkpoint, runner.work_dir, name, meta=meta, **options, **self.args)
        before = self.note(runner, f"iter_{meta['iter']}.pth", meta["iter"])
        self._keep_older(runner, before)
        if attempt(runner, meta["iter"], save):
            self.prune(runner, runner.files.checkpoints, runner.files.latest)
            self.held = _identity(runner.files.latest)
        else:
            runner.message_hub.update_info(KEPT, before)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Know what ``last.pth`` holds where the run goes on from it."""
        if runner._resume and Path(runner._load_from).absolute() == runner.files.latest:
            self.held = _identity(runner.files.latest)

    def _keep_older(self, runner: Any, before: dict[str, Any]) -> None:
        """Give what ``last.pth`` holds a name of its own, if it stays and is what this hook has written."""
        latest, names = runner.files.latest, before["last"][-1:]
        stays = self.keep != 1 or names[0] in before["for_good"] if names else False
        if stays and is_main_process() and latest.is_file() and _identity(latest) == self.held:
            with runner.saves.spared(str(latest.with_name(names[0]))):
                link_atomic(latest, latest.with_name(names[0]))


@HOOKS.register_module()
class FolderCheckpointHook(_OneLast):
    """MMEngine's hook, for a run folder."""


@HOOKS.register_module()
class HealthyFolderCheckpointHook(_OneLast, HealthyCheckpointHook):
    """That of pretraining, for a run folder."""


def _identity(file: Path) -> tuple[int, int]:
    """Of a file's content: it is replaced, never written over."""
    stat = file.stat()
    return stat.st_ino, stat.st_mtime_ns


IN_FOLDER = {
    "CheckpointHook": "FolderCheckpointHook",
    "HealthyCheckpointHook": "HealthyFolderCheckpointHook",
}


def outside_run_folder(hooks: dict[str, Any]) -> dict[str, Any]:
    """A config's ``default_hooks`` without a run folder: MMEngine's checkpoint hook becomes ours."""
    checkpoint = hooks.get("checkpoint", {"type": "CheckpointHook", "interval": 1})  # MMEngine's default
    kind = checkpoint.get("type") if isinstance(checkpoint, dict) else None
    if kind is not CheckpointHook and str(kind).rpartition(".")[2] != "CheckpointHook":
        return hooks
    return {**hooks, "checkpoint": {**checkpoint, "type": SparingCheckpointHook.__name__}}


def in_run_folder(hooks: dict[str, Any]) -> dict[str, Any]:
    """A config's ``default_hooks`` as a run folder has them.

    Raises:
        UserError: The checkpoint hook is of another class, or has a folder of its own.
    """
    checkpoint = dict(hooks.get("checkpoint") or {})
    log = dict(hooks.get("logger") or {})
    kind = str(checkpoint.pop("type", "CheckpointHook")).rpartition(".")[2]
    if kind not in IN_FOLDER:
        raise UserError(
            f"default_hooks.checkpoint.type is {kind}, and a run folder takes {' or '.join(IN_FOLDER)}. Use one, or "
            "set run_folder = False."
        )
    if checkpoint.pop("out_dir", None) is not None:
        raise UserError(
            "default_hooks.checkpoint.out_dir: a run folder keeps its checkpoints itself. Leave it out, or set "
            "run_folder = False."
        )
    for name in KEPT_BY_LOG:
        if name in checkpoint:
            log[name] = checkpoint.pop(name)
    return {
        **hooks,
        "checkpoint": {**checkpoint, "type": IN_FOLDER[kind]},
        "logger": {**log, "type": "RunLogHook"},
    }
