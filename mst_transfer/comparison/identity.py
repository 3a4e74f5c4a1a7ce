"""What makes a training, its continuation and its test one experiment: config, row, seed, options and data."""

from __future__ import annotations

import hashlib
import json
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mst_pretrain.checkpoints.reading import weight_file
from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.config import load_config, rebase_data_root
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.json_text import parse_json
from mst_pretrain.runtime.options import ADD
from mst_pretrain.runtime.run_files import LOGGERS, SWITCH, run_of
from mst_pretrain.training.resume import SHOWN, UNSEEN, changes, stops_early

from ..data.image_lists import read_image_list
from .rows import INIT_CFG, checkpoint_of, row_of

RUN = "run.json"
UNCOMPARED = (SWITCH, LOGGERS)  # keys of a config that say where its numbers go
WAITS = (
    ("default_hooks.watch", "silence"),
    ("env_cfg.dist_cfg", "timeout"),
)  # how long a lost process is waited for
# Options that change where a run reads, writes, waits or reports, but not what it computes. What was read is told by
# the data's digest.
HARMLESS = (
    *UNSEEN,
    f"{INIT_CFG}*",
    "data_root",
    "work_dir",
    "randomness.seed",
    "log_*",
    "env_cfg*",
    "vis*",
    *UNCOMPARED,
)
CAP = "train_cfg.max_iters"
LAUNCH = ("batch", "auto_scale_lr")  # options that are known once the processes are
# A module's name in configs, now and before: an older copy of a config is the same one.
MOVED = ('"mst_transfer.training.loops"', '"mst_transfer.engine"')


def telling_options(options: dict[str, Any], cfg: Config) -> dict[str, Any]:
    """Those of ``--cfg-options`` that make a run another experiment, as JSON has them.

    Where ``train_cfg.max_iters`` only stops a run early it is none: the iterations tell.
    """
    plain = {key.removeprefix(ADD): value for key, value in sorted(options.items())}
    telling = {k: v for k, v in plain.items() if not any(fnmatchcase(k, pattern) for pattern in HARMLESS)}
    if stops_early(cfg.get("train_cfg")):
        telling.pop(CAP, None)
    return dict(json.loads(json.dumps(telling, default=str)))


def config_sha256(path: str | Path) -> str:
    """Of a config with everything it inherits, wherever the data lies and whatever weights it starts from."""
    cfg = load_config(path)
    if "data_root" in cfg:
        rebase_data_root(cfg, "data")
    content = cfg._cfg_dict.to_dict()
    content.get("model", {}).get("backbone", {}).pop("init_cfg", None)
    content.get("randomness", {}).pop("seed", None)
    for key in UNCOMPARED:
        content.pop(key, None)
    for place, key in WAITS:
        found: Any = content
        for step in place.split("."):
            found = found.get(step, {}) if isinstance(found, dict) else {}
        if isinstance(found, dict):
            found.pop(key, None)
    text = json.dumps(content, sort_keys=True, default=str).replace(*MOVED)
    return hashlib.sha256(text.encode()).hexdigest()


def starting_point(cfg: Config) -> dict[str, Any]:
    """Row, file and digest of the weights that a config starts from."""
    path = checkpoint_of(cfg)
    digest = file_sha256(weight_file(path)) if path and Path(path).exists() else None
    return {"init": row_of(cfg), "init_checkpoint": path, "init_sha256": digest}


def data_of(dataset: Any) -> dict[str, Any]:
    """Number of images, and the digest of the annotation file or, without one, of the sorted image names.

    Where a list of images chooses a part of the annotation file, the digest is of both.

    Args:
        dataset: Of mmdet or mmseg. Names count from the folder that all images share; another data set has none.
    """
    images = len(dataset)
    while not hasattr(dataset, "get_data_info") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    file = getattr(dataset, "ann_file", "")
    if isinstance(file, str) and Path(file).is_file():
        digest = file_sha256(file)
        names = read_image_list(getattr(dataset, "image_list", None))
        if names is not None:
            digest = hashlib.sha256("\n".join([digest, *sorted(names)]).encode()).hexdigest()
        return {"images": images, "sha256": digest}
    return {"images": images, "sha256": hashlib.sha256("\n".join(_names(dataset)).encode()).hexdigest()}


def _names(dataset: Any) -> list[str]:
    known = range(len(dataset)) if hasattr(dataset, "get_data_info") else ()
    paths = [str(dataset.get_data_info(index).get("img_path", "")) for index in known]
    if not paths or not all(paths):
        return []
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
    """What the training recorded that wrote a checkpoint, if it is there."""
    path = run_of(checkpoint) / RUN
    if not path.is_file():
        return None
    try:
        return dict(parse_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Put a copy of it back, or train again into another --work-dir."
        ) from error


# What a fine-tuning of version 0.1 is compared by, whose checkpoints do not hold their config.
TOLD = ("config_sha256", "init", "seed", "options", "batch")


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """``key: old -> new`` of what two records say of their run: config, row, seed, options, images."""
    one, other = (
        {**{key: run[key] for key in TOLD}, "data.train": (run["data"] or {}).get("train")}
        for run in (before, now)
    )
    return list(changes(one, other, ignored=()))
