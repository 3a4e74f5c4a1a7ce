"""What a training and a test leave for the comparison: row, config, seed, options; which checkpoint scored what.

A training writes ``run.json`` and ``optimizer.json`` into its work directory; a test writes ``results/CHECKPOINT.json``
into its own, with ``run.json`` of the checkpoint's folder in it. Nothing of an earlier test is overwritten except one
of the same file.
"""

from __future__ import annotations

import hashlib
import json
import numbers
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mst_pretrain.checkpoint_io import file_sha256
from mst_pretrain.config import ADD, load_config
from mst_pretrain.engine import step_batch
from mst_pretrain.evaluation.report import surroundings, write_json

from .optimizer import optimizer_table
from .rows import INIT_CFG, checkpoint_of, row_of

RUN, OPTIMIZER, RESULTS = "run.json", "optimizer.json", "results"
# Options that change where a run reads, writes or waits, but not what it computes.
HARMLESS = (
    *(INIT_CFG, "data_root", "work_dir", "randomness.seed", "default_hooks.", "log_", "env_cfg", "vis"),
    "train_cfg.val",
)
HARMLESS_ENDS = (".num_workers", ".persistent_workers", ".data_root")


def telling_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of ``--cfg-options`` that make a run another experiment."""
    plain = {key.removeprefix(ADD): value for key, value in sorted(options.items())}
    return {k: v for k, v in plain.items() if not k.startswith(HARMLESS) and not k.endswith(HARMLESS_ENDS)}


def config_sha256(path: str | Path) -> str:
    """Of a config with everything it inherits, wherever the data lies and whatever weights it starts from."""
    cfg = load_config(path)
    content = load_config(path, {"data_root": "data"} if "data_root" in cfg else {})._cfg_dict.to_dict()
    content.get("model", {}).get("backbone", {}).pop("init_cfg", None)
    content.get("randomness", {}).pop("seed", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def starting_point(cfg: Config) -> dict[str, Any]:
    """Row, file and digest of the weights that a config starts from.

    To be asked before ``--resume`` removes them from the config.
    """
    path = checkpoint_of(cfg)
    digest = file_sha256(path) if path and Path(path).is_file() else None
    return {"init": row_of(cfg), "init_checkpoint": path, "init_sha256": digest}


class RunRecord(Hook):
    """Writes ``run.json`` and ``optimizer.json`` when training starts; a resumed run keeps what it began with.

    Args:
        config: Config file.
        start: :func:`starting_point`.
        options: ``--cfg-options`` and switches such as ``amp``.
    """

    def __init__(self, config: str | Path, start: dict[str, Any], options: dict[str, Any]) -> None:
        self.config, self.start, self.options = str(config), start, options

    def before_train(self, runner: Runner) -> None:
        """Write it, in the first process."""
        path = Path(runner.work_dir, RUN)
        if not is_main_process() or (runner._resume and path.is_file()):
            return
        model = getattr(runner.model, "module", runner.model)
        write_json(
            optimizer_table(model, runner.optim_wrapper.optimizer), path.with_name(OPTIMIZER), indent=None
        )
        batch = step_batch(runner, runner.optim_wrapper)
        options = telling_options(self.options)
        base = runner.cfg.get("auto_scale_lr", {}).get("base_batch_size", batch)
        if batch != base:
            options["batch"] = batch
            if runner.cfg.auto_scale_lr.enable:
                options["auto_scale_lr"] = True
        loop = runner.train_loop
        record = {
            "config": self.config,
            "config_sha256": config_sha256(self.config),
            **self.start,
            "seed": runner.seed,
            "options": options,
            "batch": batch,
            "iterations": getattr(loop, "full_iters", loop.max_iters),
            **surroundings(_device()),
        }
        write_json(record, path)


class ResultRecord(Hook):
    """Writes ``results/CHECKPOINT.json`` when a test ends.

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
        trained = Path(self.checkpoint).with_name(RUN)
        record = {
            "config": self.config,
            "config_sha256": config_sha256(self.config),
            "run": json.loads(trained.read_text()) if trained.is_file() else None,
            "checkpoint": self.checkpoint,
            "checkpoint_sha256": digest,
            "iteration": self.iteration,
            "tta": self.tta,
            "options": telling_options(self.options),
            "metrics": {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, numbers.Real)},
            **surroundings(_device()),
        }
        name = f"{digest[:12]}{'_tta' if self.tta else ''}.json"
        write_json(record, Path(runner.work_dir, RESULTS, name))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
