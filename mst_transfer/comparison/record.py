"""What a training and a test leave for the comparison: row, config, seed, options, data; which checkpoint scored what.

A training writes ``run.json`` into its work directory; a test writes
``results/CHECKPOINT_SETTINGS.json`` into its own, with ``run.json`` of the checkpoint's folder in it. SETTINGS is a
digest of the test's config, options and data: a test overwrites only one of the same file with the same settings.
"""

from __future__ import annotations

import hashlib
import json
import numbers
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mst_pretrain.runtime.atomic import file_sha256, write_json
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.resume import refuse
from mst_pretrain.training.runner import step_batch

from ..data.coco_file import forget_parsed
from ..evaluation.trivial import baseline_metrics
from .identity import (
    RUN,
    config_sha256,
    data_of,
    differences,
    run_beside,
    starting_point,
    telling_options,
    tested_data_of,
)

RESULTS = "results"


class RunRecord(Hook):
    """Writes ``run.json`` when training starts; a resumed run keeps what it began with.

    Args:
        config: Config file.
        options: ``--cfg-options`` and switches such as ``amp``.
    """

    def __init__(self, config: str | Path, options: dict[str, Any]) -> None:
        self.config, self.options = str(config), options

    def before_train(self, runner: Runner) -> None:
        """Write it, in the first process; behind it nothing of the start reads annotations."""
        if is_main_process():
            path, record = Path(runner.work_dir, RUN), self.record(runner)
            if runner.resumed is not None:
                record = self.continued(runner._load_from or str(path), runner.resumed, record)
            write_json(record, path)
        forget_parsed()

    def continued(self, checkpoint: str, resumed: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
        """The record of the first run; where only the checkpoint was kept, that of the present one is the same.

        A checkpoint of version 0.1, which does not hold its config, needs its ``run.json`` and the same run.
        """
        before = run_beside(checkpoint)
        if "config" not in resumed:
            if before is None:
                raise UserError(
                    f"--resume {checkpoint}: neither the checkpoint nor a {RUN} beside it tells what it was started "
                    f"from. Put its {RUN} back, or start a new run with another --work-dir and without --resume."
                )
            refuse(checkpoint, differences(before, now))
        return before or now

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
            **starting_point(runner.cfg),
            "seed": runner.seed,
            "options": options,
            "batch": batch,
            "iterations": getattr(loop, "full_iters", loop.max_iters),
            "data": {"train": data_of(loop.dataloader.dataset), "test": tested_data_of(runner.cfg)},
            **environment_info(),
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
            "baseline": baseline_metrics(runner.test_evaluator.metrics),
            "metrics": {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, numbers.Real)},
            **environment_info(),
        }
        settings = json.dumps([record[key] for key in ("config_sha256", "options", "data")], sort_keys=True)
        name = f"{digest[:12]}_{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
        write_json(record, Path(runner.work_dir, RESULTS, f"{name}{'_tta' if self.tta else ''}.json"))
