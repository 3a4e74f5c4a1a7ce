"""From a config and command-line arguments to a running training or test."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..checkpoints.storage import use_safe_loading
from ..runtime.config import check_lengths, check_seed, explain, import_custom_modules
from ..runtime.errors import LostProcess, Stopped, UserError
from ..runtime.known_keys import check_known_keys, check_numbers
from ..runtime.run_files import LOGGERS
from ..runtime.value_types import check_value_types
from ..runtime.work_dir import explain_full_disk
from .command_line import LAUNCHERS as LAUNCHERS
from .command_line import add_arguments as add_arguments
from .continuing import choose, settle
from .loggers import check_loggers
from .meeting import explain_lost, lost, meet
from .processes import OTHER_RANK_WAITS, launcher_of

AMP_WRAPPERS = {"OptimWrapper": "AmpOptimWrapper", "MSTOptimWrapper": "MSTAmpOptimWrapper"}


def prepare(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command line into the config, as mmdet's tools do.

    Raises:
        UserError: ``--amp`` without a GPU, ``--auto-scale-lr`` without a base batch, no ``--resume`` or
            ``--init-from`` file; see also :func:`launcher_of`.
    """
    args.launcher = launcher_of(args.launcher)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
    cfg.launcher = args.launcher
    if getattr(args, "amp", False):
        _use_amp(cfg, args.config)
    if getattr(args, "auto_scale_lr", False):
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise UserError(
                f"--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size. Pretraining configs "
                "need none, their schedule scales the learning rate with the batch; elsewhere add it."
            )
        cfg.auto_scale_lr.enable = True
    if hasattr(args, "resume"):
        choose(cfg, args.resume)
    if getattr(args, "init_from", None):
        _init_from(cfg, args)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if (cfg.get(name) or {}).get("num_workers") == 0:
            cfg[name].persistent_workers = False  # PyTorch refuses it without workers
        if cfg.get(name) and torch.cuda.is_available():
            cfg[name].setdefault("pin_memory", True)  # so that a copy to the GPU need not be waited for
    if getattr(args, "logger", None):
        cfg[LOGGERS] = list(dict.fromkeys(args.logger))
    check_loggers(cfg)
    _log_short_runs(cfg)
    _check_encoding(cfg)
    _set_up_devices(cfg)


def _use_amp(cfg: Config, path: str) -> None:
    if not torch.cuda.is_available():
        raise UserError("--amp: mixed precision needs a GPU and none is visible. Leave --amp out on the CPU.")
    kind = AMP_WRAPPERS.get(cfg.optim_wrapper.type, cfg.optim_wrapper.type)
    if kind not in AMP_WRAPPERS.values():
        raise UserError(
            f"--amp: {path} has optim_wrapper.type='{kind}', not one of {sorted(AMP_WRAPPERS)}. Use one."
        )
    cfg.optim_wrapper.type = kind
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def _init_from(cfg: Config, args: argparse.Namespace) -> None:
    if "init_from" not in cfg.get("model", {}):
        raise UserError(
            f"--init-from: {args.config} is not a pretraining config. Name the backbone's weights there with "
            "--cfg-options model.backbone.init_cfg.checkpoint=FILE."
        )
    if not cfg.get("resume") and not Path(args.init_from).exists():  # resumed weights replace it
        raise UserError(f"--init-from {args.init_from} does not exist. Give a checkpoint of a backbone.")
    cfg.model.init_from = args.init_from


def _check_encoding(cfg: Config) -> None:
    """The run's config is written as UTF-8, so a path that is not cannot be in it; names below ``data_root`` may be."""
    for key in ("work_dir", "data_root", "load_from"):
        value = str(cfg.get(key))
        try:
            value.encode()
        except UnicodeEncodeError as error:
            readable = value.encode(errors="backslashreplace").decode()
            raise UserError(
                f"{key} is '{readable}', which is not UTF-8, and the run's config could not be written. Rename the "
                "folder, or link to it: ln -s FOLDER data"
            ) from error


def _log_short_runs(cfg: Config) -> None:
    """A trial run of a few iterations prints every one of them."""
    logger = cfg.get("default_hooks", {}).get("logger")
    limit = cfg.get("train_cfg", {}).get("max_iters")
    if limit is not None and not isinstance(limit, int):
        raise UserError(f"{cfg.filename}: train_cfg.max_iters is '{limit}', not a whole number. Correct it.")
    interval = logger.get("interval", 10) if logger else None
    if limit and isinstance(interval, int) and limit < interval:
        logger.interval = 1


def _set_up_devices(cfg: Config) -> None:
    """Without a GPU several processes talk through gloo and batch norm stays per process."""
    if torch.cuda.is_available() or cfg.launcher == "none":
        return
    if cfg.launcher != "pytorch":
        raise UserError(
            f"--launcher {cfg.launcher} needs GPUs and none is visible. Use tools/dist_train.sh on CPUs."
        )
    if cfg.get("model", {}).get("head", {}).get("norm") == "syncbn":
        raise UserError(
            "model.head.norm='syncbn' needs GPUs and none is visible: PyTorch synchronises batch norm on GPUs only. "
            "Train in one process, or set model.head.norm=bn (statistics per process)."
        )
    cfg.merge_from_dict({"env_cfg.dist_cfg.backend": "gloo"})
    cfg.sync_bn = None
    cfg.model_wrapper_cfg = dict(
        type="MMDistributedDataParallel",
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )


def run(cfg: Config, task: Callable[[Any], Any]) -> Any:
    """Import what the config names, build its runner, and call ``task`` with it.

    Raises:
        UserError: Bad data, weights, or a config value that a class of the config does not take.
    """
    try:
        use_safe_loading()
        import_custom_modules(cfg)
        check_value_types(cfg)
        check_seed(cfg)
        meet(cfg)
        settle(cfg)
        from .runner import build_runner

        result = task(build_runner(cfg))
        _leave_together()
        return result
    except Stopped:
        _leave_together()
        raise
    except LostProcess:
        raise
    except UserError as error:
        _let_first_rank_speak()
        raise UserError(_without_worker_traceback(str(error))) from error
    except OSError as error:
        full = explain_full_disk(cfg.get("work_dir", ""), error)
        if full is None:
            raise
        raise full from error
    except RuntimeError as error:
        if not lost(error):
            raise
        raise explain_lost(cfg, error) from error
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError) as error:
        explained = explain(cfg, error)
        if explained is None:
            raise
        _let_first_rank_speak()
        raise explained from error


def _leave_together() -> None:
    """Nobody ends before the first process has written its checkpoint, and no thread outlives the interpreter."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def check_pretraining(cfg: Config, images: bool = True) -> None:
    """Raise a UserError where a pretraining config has no images or an impossible length, before anything is built.

    Args:
        cfg: The config.
        images: False leaves out whether the images are there.
    """
    check_known_keys(cfg)
    check_numbers(cfg)
    check_lengths(cfg, 0)  # 0 leaves the initial weights as the checkpoint
    if not images:
        return
    dataset = (cfg.get("train_dataloader") or {}).get("dataset", {})
    if dataset.get("type") == "UnlabelledImages":
        from ..data.sources import check_source

        check_source(dataset["data_root"])


def on_first_rank(check: Callable[[], object]) -> None:
    """Run ``check`` in the first of the processes only; the others wait for it when they meet."""
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0:
        check()


def _let_first_rank_speak() -> None:
    """The same error usually meets every process: the first prints it and ends the job."""
    if int(os.environ.get("RANK", "0")) > 0:
        time.sleep(OTHER_RANK_WAITS)


def _without_worker_traceback(message: str) -> str:
    """PyTorch wraps an error of a data worker in that worker's traceback; keep the message itself."""
    if "Traceback (most recent call last)" not in message:
        return message
    return message.rpartition("UserError: ")[2].strip()
