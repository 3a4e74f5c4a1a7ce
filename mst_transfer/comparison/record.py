"""What a training and a test leave for the comparison: row, config, seed, options, data; which checkpoint scored what.

A training writes ``run.json`` and ``optimizer.json`` into its work directory; a test writes
``results/CHECKPOINT_SETTINGS.json`` into its own, with ``run.json`` of the checkpoint's folder in it. SETTINGS is a
digest of the test's config, options and data: a test overwrites only one of the same file with the same settings.
"""

from __future__ import annotations

import hashlib
import json
import numbers
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mst_pretrain.checkpoints.storage import file_sha256
from mst_pretrain.evaluation.report import surroundings, write_json
from mst_pretrain.training.runner import step_batch

from .identity import (
    RUN,
    check_continues,
    config_sha256,
    data_of,
    run_beside,
    telling_options,
    tested_data_of,
)
from .optimizer import optimizer_table

OPTIMIZER, RESULTS = "optimizer.json", "results"


class RunRecord(Hook):
    """Writes ``run.json`` and ``optimizer.json`` when training starts; a resumed run keeps what it began with.

    Args:
        config: Config file.
        start: :func:`.identity.starting_point`.
        options: ``--cfg-options`` and switches such as ``amp``.
    """

    def __init__(self, config: str | Path, start: dict[str, Any], options: dict[str, Any]) -> None:
        self.config, self.start, self.options = str(config), start, options

    def before_train(self, runner: Runner) -> None:
        """Write it, in the first process.

        Raises:
            UserError: The resumed checkpoint is of another run.
        """
        if not is_main_process():
            return
        path, record = Path(runner.work_dir, RUN), self.record(runner)
        if runner._resume:
            record = check_continues(runner._load_from or path, record)
        model = getattr(runner.model, "module", runner.model)
        write_json(
            optimizer_table(model, runner.optim_wrapper.optimizer), path.with_name(OPTIMIZER), indent=None
        )
        write_json(record, path)

    def record(self, runner: Runner) -> dict[str, Any]:
        """All that tells this training from another."""
        batch = step_batch(runner, runner.optim_wrapper)
        options = telling_options(self.options, runner.cfg)
        base = runner.cfg.get("auto_scale_lr", {}).get("base_batch_size", batch)
        if batch != base:
            options["batch"] = batch
            if runner.cfg.auto_scale_lr.enable:
                options["auto_scale_lr"] = True
        loop = runner.train_loop
        return {
            "config": self.config,
            "config_sha256": config_sha256(self.config),
            **self.start,
            "seed": runner.seed,
            "options": options,
            "batch": batch,
            "iterations": getattr(loop, "full_iters", loop.max_iters),
            "data": {"train": data_of(loop.dataloader.dataset), "test": tested_data_of(runner.cfg)},
            **surroundings(_device()),
        }


class ResultRecord(Hook):
    """Writes ``results/CHECKPOINT_SETTINGS.json`` when a test ends.

    Args:
        config: Config file.
        checkpoint: The tested one.
        options: ``--cfg-options`` and switches of the test.
        tta: Whether it was tested at several sizes and mirrored; kept apart from the single scale.
    """

    priority = "LOWEST"

    def __init__(
        self, config: str | Path, checkpoint: str | Path, options: dict[str, Any], tta: bool = False
    ) -> None:
        self.config, self.checkpoint, self.options, self.tta = str(config), str(checkpoint), options, tta
        self.iteration: int | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """How far the tested checkpoint was trained."""
        self.iteration = checkpoint.get("meta", {}).get("iter")

    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Write it, in the first process."""
        if not is_main_process():
            return
        digest = file_sha256(self.checkpoint)
        record = {
            "config": self.config,
            "config_sha256": config_sha256(self.config),
            "run": run_beside(self.checkpoint),
            "checkpoint": self.checkpoint,
            "checkpoint_sha256": digest,
            "iteration": self.iteration,
            "tta": self.tta,
            "options": telling_options(self.options, runner.cfg),
            "data": data_of(runner.test_loop.dataloader.dataset),
            "metrics": {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, numbers.Real)},
            **surroundings(_device()),
        }
        settings = json.dumps([record[key] for key in ("config_sha256", "options", "data")], sort_keys=True)
        name = (
            f"{digest[:12]}_{hashlib.sha256(settings.encode()).hexdigest()[:8]}{'_tta' if self.tta else ''}"
        )
        write_json(record, Path(runner.work_dir, RESULTS, f"{name}.json"))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
