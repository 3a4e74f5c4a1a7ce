"""The checkpoint hooks of a run folder, and which hooks a config's own ones become there."""

from __future__ import annotations

from functools import partial
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from ..runtime.errors import UserError
from .failing_saves import SparingCheckpointHook, attempt
from .health import HealthyCheckpointHook

KEPT_BY_LOG = ("save_best", "rule")  # arguments of the checkpoint hook that the log's hook takes over


class _OneLast(CheckpointHook):
    """One ``checkpoints/last.pth`` that is replaced, in the place of numbered files of which some are kept."""

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
        attempt(runner, meta["iter"], save)


@HOOKS.register_module()
class FolderCheckpointHook(_OneLast):
    """MMEngine's hook, for a run folder."""


@HOOKS.register_module()
class HealthyFolderCheckpointHook(_OneLast, HealthyCheckpointHook):
    """That of pretraining, for a run folder."""


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
