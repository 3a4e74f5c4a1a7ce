"""A resumed run is the run that it continues: every checkpoint holds the first config, the data and the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size

from ..runtime.config import rebase_data_root
from ..runtime.errors import UserError

RUN = "run"  # the entry of a checkpoint's meta
COMPARED = (  # the parts of a config that a training step depends on; a launcher sets model_wrapper_cfg
    *("model", "data_preprocessor", "train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"),
    *("default_hooks", "custom_hooks", "auto_scale_lr", "randomness", "default_scope", "compile"),
    "sync_bn",
)
UNSEEN = (  # keys inside these parts that change where a run reads, waits, stops or reports, not what it computes
    *("*.num_workers", "*.persistent_workers", "*.pin_memory", "*.prefetch_factor", "*.data_root"),
    *("train_dataloader.dataset.decode", "train_dataloader.dataset.cache", "train_cfg.val_*"),
    "train_cfg.dynamic_intervals",
    *("*.non_blocking", "model.compile", "model.gradient_checkpointing", "*.with_cp"),
    *(f"default_hooks.{hook}*" for hook in ("logger", "timer", "first_steps", "checkpoint", "visualization")),
)
ONCE_RESUMED = (  # and what the checkpoint replaces, or what is compared by its product
    *("train_dataloader.batch_size", "train_cfg.accumulate", "model.init_from"),
    "train_dataloader.dataset.check",
    *(f"default_hooks.{hook}" for hook in ("watch", "health", "exact_resume")),
)
SHOWN = 8  # digits of a digest
NOT_SET = "not set"


def plain(cfg: Config) -> dict[str, Any]:
    """A config as JSON has it: only dictionaries, lists, numbers, texts and None."""
    return dict(json.loads(json.dumps(cfg._cfg_dict.to_dict(), default=str)))


def without_weights(model: Any) -> Any:
    """A model's config without the files that a new run starts from."""
    if not isinstance(model, dict):
        return model
    model = {**model, "init_from": None} if "init_from" in model else dict(model)
    backbone = model.get("backbone")
    if isinstance(backbone, dict) and "init_cfg" in backbone:
        model["backbone"] = {**backbone, "init_cfg": None}
    return model


def stops_early(train_cfg: dict[str, Any] | None) -> bool:
    """Whether ``train_cfg.max_iters`` leaves the schedules their length."""
    return (train_cfg or {}).get("max_epochs") is not None


def describe(runner: Any) -> dict[str, Any]:
    """What makes a run the one that it is: its ``config``, see :func:`plain`.

    Of our own loops also ``batch``: images of one optimizer step, ``per_process``: images that one process takes at
    once, and ``data``: the number of images and their digest.
    """
    loop, found = runner.train_loop, {"config": runner.given}
    if hasattr(loop, "global_batch"):
        found |= {"batch": loop.global_batch, "per_process": loop.per_process, "data": loop.data}
    return found


def recorded(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """:func:`describe` of a checkpoint's first run, as far as the checkpoint tells it.

    Checkpoints of version 0.1 have no such entry: pretraining's tell batch and data, those of fine-tuning nothing.
    """
    meta = checkpoint.get("meta") or {}
    if RUN in meta or "sampler" not in checkpoint:
        return dict(meta.get(RUN, {}))
    data = {"images": checkpoint["sampler"]["size"], "sha256": checkpoint.get("images", "")}
    return {"batch": checkpoint.get("global_batch"), "data": data}


def check_continues(checkpoint: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """A resumed run must be the one that wrote the checkpoint.

    Args:
        checkpoint: The resumed file.
        before: :func:`recorded` in it.
        now: :func:`describe` of the resumed run.
    """
    if before.get("batch") and "batch" in now and before["batch"] != now["batch"]:
        raise UserError(_batch_refusal(checkpoint, before["batch"], now))
    lines = list(changes(_compared(before["config"]), _compared(now["config"]))) if "config" in before else []
    one, other = before.get("data"), now.get("data")
    if one and other:
        digests = {one["sha256"], other["sha256"]} - {""}
        if one["images"] != other["images"] or len(digests) > 1:
            lines.append(
                f"the training data: {_data(one)} -> {_data(other)} (an images.npz beside the checkpoint must be its "
                "run's)"
            )
    refuse(checkpoint, lines)


def refuse(checkpoint: str, lines: list[str]) -> None:
    """Raise a :class:`UserError` if there are differences, ``key: old -> new`` each."""
    if lines:
        listed = "\n  ".join(lines)
        raise UserError(
            f"cannot resume {checkpoint}: this run is not the one that wrote it:\n  {listed}\nGive the first run's "
            f"config, options and images. To start anew from these weights, leave --resume out and give another "
            f"--work-dir and --cfg-options load_from={checkpoint} (fine-tuning) or --init-from {checkpoint} "
            "(pretraining)."
        )


def changes(
    old: Any, new: Any, key: str = "", ignored: tuple[str, ...] = UNSEEN + ONCE_RESUMED
) -> Iterator[str]:
    """One line ``key: old -> new`` for each value that is different in two nested dictionaries.

    Keys are dotted; those that match one of the patterns in ``ignored`` are not compared.
    """
    if old == new or any(fnmatchcase(key, pattern) for pattern in ignored):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {name: (old.get(name, NOT_SET), new.get(name, NOT_SET)) for name in {**old, **new}}
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = dict(zip(map(str, range(len(old))), zip(old, new, strict=True), strict=True))
    else:
        yield f"{key}: {old} -> {new}"
        return
    for name, (one, other) in pairs.items():
        yield from changes(one, other, f"{key}.{name}" if key else name, ignored)


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """The parts that a step depends on; paths below the config's data root as if it had always lain in one place."""
    if "data_root" in config:
        moved = Config(config)
        rebase_data_root(moved, "data")
        config = moved._cfg_dict.to_dict()
    found = {name: config[name] for name in COMPARED if config.get(name) is not None}
    if stops_early(found.get("train_cfg")):
        found["train_cfg"] = {key: value for key, value in found["train_cfg"].items() if key != "max_iters"}
    return found


def _data(data: dict[str, Any]) -> str:
    return f"{data['images']} images" + (f" {data['sha256'][:SHOWN]}" if data["sha256"] else "")


def _batch_refusal(checkpoint: str, batch: int, now: dict[str, Any]) -> str:
    processes, size = get_world_size(), now["per_process"]
    accumulated = now["batch"] // (processes * size)
    return (
        f"cannot resume {checkpoint}: it was trained with {batch} images per step, this run has {now['batch']} = "
        f"{processes} (processes) x {size} (batch_size) x {accumulated} (accumulated), and every schedule counts "
        f"steps. Give train_dataloader.batch_size, or another number of processes, so that the product is {batch}."
    )
