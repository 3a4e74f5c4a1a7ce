"""What makes a training, its continuation and its test one experiment: config, row, seed, options and data."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mst_pretrain.checkpoints.reading import weight_file
from mst_pretrain.checkpoints.storage import file_sha256
from mst_pretrain.runtime.config import ADD, load_config
from mst_pretrain.runtime.errors import UserError

from .rows import INIT_CFG, checkpoint_of, row_of

RUN = "run.json"
# Options that change where a run reads, writes, waits or reports, but not what it computes. What was read is told by
# the data's digest.
HARMLESS = (
    *(INIT_CFG, "data_root", "work_dir", "randomness.seed", "log_", "env_cfg", "vis", "train_cfg.val"),
    *(f"default_hooks.{hook}" for hook in ("logger", "timer", "first_steps", "checkpoint", "visualization")),
)
HARMLESS_ENDS = (".num_workers", ".persistent_workers", ".data_root")
CAP = "train_cfg.max_iters"
LAUNCH = ("batch", "auto_scale_lr")  # options that are known once the processes are
SHOWN = 8  # digits of a digest


def telling_options(options: dict[str, Any], cfg: Config) -> dict[str, Any]:
    """Those of ``--cfg-options`` that make a run another experiment, as JSON has them.

    Where ``train_cfg.max_iters`` only stops a run early it is none: the iterations tell.
    """
    plain = {key.removeprefix(ADD): value for key, value in sorted(options.items())}
    telling = {k: v for k, v in plain.items() if not k.startswith(HARMLESS) and not k.endswith(HARMLESS_ENDS)}
    if stops_early(cfg):
        telling.pop(CAP, None)
    return dict(json.loads(json.dumps(telling, default=str)))


def stops_early(cfg: Config) -> bool:
    """Whether ``train_cfg.max_iters`` leaves the schedules their length."""
    return (cfg.get("train_cfg") or {}).get("type") == "CappedEpochLoop"


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
    digest = file_sha256(weight_file(path)) if path and Path(path).exists() else None
    return {"init": row_of(cfg), "init_checkpoint": path, "init_sha256": digest}


def data_of(dataset: Any) -> dict[str, Any]:
    """Number of images, and the digest of the annotation file or, without one, of the sorted image names.

    Args:
        dataset: Of mmdet or mmseg. Names count from the folder that all images share.
    """
    images = len(dataset)
    while not hasattr(dataset, "get_data_info") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    file = getattr(dataset, "ann_file", "")
    if isinstance(file, str) and Path(file).is_file():
        return {"images": images, "sha256": file_sha256(file)}
    return {"images": images, "sha256": hashlib.sha256("\n".join(_names(dataset)).encode()).hexdigest()}


def _names(dataset: Any) -> list[str]:
    paths = [str(dataset.get_data_info(index)["img_path"]) for index in range(len(dataset))]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return sorted(os.path.relpath(path, root) for path in paths)


def tested_data_of(cfg: Config) -> dict[str, Any] | None:
    """:func:`data_of` what a config's test reads; None where it is not there."""
    dataset = (cfg.get("test_dataloader") or {}).get("dataset")
    try:
        return data_of(DATASETS.build(dataset)) if dataset else None
    except (OSError, UserError):
        return None


def deviations(record: dict[str, Any]) -> list[str]:
    """What a test had otherwise than the training of its checkpoint, apart from options: config, data."""
    run, found = record["run"], []
    tested = record.get("config_sha256", run["config_sha256"])
    if tested != run["config_sha256"]:
        found.append(f"tested with another config {tested[:SHOWN]}")
    data = record.get("data")
    if data and data != (run.get("data") or {}).get("test"):
        found.append(f"tested on other data {data['sha256'][:SHOWN]}: {data['images']} images")
    return found


def run_beside(checkpoint: str | Path) -> dict[str, Any] | None:
    """What the training recorded that wrote a checkpoint, if it is there.

    Raises:
        UserError: It cannot be read.
    """
    path = Path(checkpoint).with_name(RUN)
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Put a copy of it back, or train again into another --work-dir."
        ) from error


def check_continues(checkpoint: str | Path, now: dict[str, Any]) -> dict[str, Any]:
    """A resumed training must be the one that wrote the checkpoint.

    What may differ is what no step depends on: :data:`HARMLESS` options, and :data:`CAP` where it only stops early.

    Args:
        checkpoint: To resume from.
        now: This run's record, or the part of it that is known.

    Returns:
        The record of the first call.

    Raises:
        UserError: Config, row, seed, options, images or images per step are others, or nothing was recorded.
    """
    before = run_beside(checkpoint)
    path = Path(checkpoint).with_name(RUN)
    if before is None:
        raise UserError(
            f"--resume {checkpoint}: there is no {path}, so nobody knows what it was started from. Put that file back, "
            "or start a new run with another --work-dir and without --resume."
        )
    had, has = (_identity(run, now, before) for run in (before, now))
    if had != has:
        keys = [key for key in {**had, **has} if had.get(key) != has.get(key)]
        listed = "; ".join(
            f"{key} is {had.get(key, 'not set')} there, {has.get(key, 'not set')} here" for key in keys
        )
        raise UserError(
            f"--resume {checkpoint}: {path} is of another run: {listed}. Give the first call's config and options, or "
            "start a new run with another --work-dir and without --resume."
        )
    return before


def _identity(run: dict[str, Any], *known: dict[str, Any]) -> dict[str, Any]:
    """What a training may not change, by readable names, as far as all of ``known`` have it."""
    options = dict(run["options"])
    if not all("batch" in other for other in known):
        options = {key: value for key, value in options.items() if key not in LAUNCH}
    found = {
        "the config's digest": run["config_sha256"][:SHOWN],
        "the row": run["init"],
        "the seed": run["seed"],
    }
    if all(other.get("data") for other in known):
        data = run["data"]["train"]
        found["the training data"] = f"{data['images']} images {data['sha256'][:SHOWN]}"
    return {**found, **options}
