"""From a config and command-line arguments to a running training or test."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.utils import import_modules_from_strings

from .errors import UserError

ADD = "+"
AMP_WRAPPERS = {"OptimWrapper": "AmpOptimWrapper", "MSTOptimWrapper": "MSTAmpOptimWrapper"}
LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
BAD_ARGUMENT = re.compile(r"(?:(\w+)\.)?(\w+)\(\) got an unexpected keyword argument '(\w+)'")
NOT_REGISTERED = re.compile(r"(\S+) is not in the \S+ registry")
OTHER_RANK_WAITS = 15.0


class ConfigOptions(DictAction):
    """MMEngine's ``--cfg-options KEY=VALUE ...``, with a message where ``=`` is missing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        """Parse the pairs."""
        bare = [value for value in values if "=" not in value]
        if bare:
            parser.error(f"--cfg-options takes KEY=VALUE pairs, got '{bare[0]}'")
        super().__call__(parser, namespace, values, option)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that training and test share, named as mmdet names them."""
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/<config name>)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="override keys of the config, dotted; +KEY=VALUE adds a new one; data_root=DIR moves "
        "every path below the old data root",
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="job launcher")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def load_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Read a config and override keys of it; nothing it names is imported yet.

    Args:
        path: Config file.
        options: Dotted key to value. ``data_root`` moves every path; a leading ``+`` adds a key.

    Raises:
        UserError: The file is missing or not Python, or a key is not in it.
    """
    try:
        cfg = Config.fromfile(str(path), import_custom_modules=False)
    except FileNotFoundError as error:
        raise UserError(f"config {path} cannot be read: {error}. The configs are under configs/.") from error
    except SyntaxError as error:
        raise UserError(f"config {path} is not valid Python: {error}. Correct that line.") from error
    options = dict(options or {})
    check_option_keys(cfg, options, path)
    if "data_root" in options:
        rebase_data_root(cfg, str(options.pop("data_root")))
    cfg.merge_from_dict({key.removeprefix(ADD): value for key, value in options.items()})
    return cfg


def check_option_keys(cfg: Config, options: dict[str, Any], path: str | Path) -> None:
    """Every key of ``--cfg-options`` must be in the config already, unless it is added with ``+``.

    Raises:
        UserError: It is not; the message has the nearest key that is.
    """
    for key in options:
        if key.startswith(ADD) or _has_key(cfg, key):
            continue
        known = [known for known, _ in _walk(cfg._cfg_dict)]
        parent = key.rpartition(".")[0]
        siblings = [name for name in known if parent and name.startswith(f"{parent}.")]
        close = difflib.get_close_matches(key, siblings, 1) or difflib.get_close_matches(key, known, 1)
        nearest = f" Did you mean '{close[0]}'?" if close else ""
        raise UserError(
            f"{path} has no key '{key}' (--cfg-options).{nearest} To add a new key write {ADD}{key}=..."
        )


def rebase_data_root(cfg: Config, new: str) -> None:
    """Replace the config's data root by ``new`` in every string that is it or starts below it, in place."""
    old = str(cfg.data_root).rstrip("/")
    new = new.rstrip("/") or "/"

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = moved(value[key])
        elif isinstance(value, (list, tuple)):
            return type(value)(moved(item) for item in value)
        elif isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            return new + value[len(old) :]
        return value

    moved(cfg._cfg_dict)


def prepare(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command line into the config, as mmdet's tools do.

    Raises:
        UserError: ``--amp`` without a GPU, ``--auto-scale-lr`` without a base batch, no ``--resume`` file.
    """
    default = Path("work_dirs", Path(args.config).stem)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(default)
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
    if getattr(args, "resume", None):
        _resume(cfg, args.resume)
    _set_up_devices(cfg)


def _use_amp(cfg: Config, path: str) -> None:
    if not torch.cuda.is_available():
        raise UserError("--amp: mixed precision needs a GPU and none is visible. Leave --amp out on the CPU.")
    kind = cfg.optim_wrapper.type
    if kind not in AMP_WRAPPERS and kind not in AMP_WRAPPERS.values():
        raise UserError(
            f"--amp: {path} has optim_wrapper.type='{kind}', not one of {sorted(AMP_WRAPPERS)}. Use one."
        )
    cfg.optim_wrapper.type = AMP_WRAPPERS.get(kind, kind)
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def _resume(cfg: Config, source: str) -> None:
    """``source``: a file, or ``auto`` for the newest checkpoint of the work directory, if there is one."""
    from .engine import LATEST

    path = Path(cfg.work_dir, LATEST) if source == "auto" else Path(source)
    if not path.is_file():
        if source != "auto":
            raise UserError(
                f"--resume {path}: there is no such file. Give a checkpoint of this config's run."
            )
        print(f"--resume: no {path} yet, starting from the beginning", flush=True)
        return
    cfg.resume, cfg.load_from = True, str(path)
    backbone = cfg.get("model", {}).get("backbone")
    if isinstance(backbone, dict) and "init_cfg" in backbone:
        backbone["init_cfg"] = None  # the resumed weights replace them all; the pretraining file may be gone


def _set_up_devices(cfg: Config) -> None:
    """Without a GPU several processes talk through gloo and batch norm stays per process."""
    if torch.cuda.is_available() or cfg.launcher == "none":
        return
    if cfg.launcher != "pytorch":
        raise UserError(
            f"--launcher {cfg.launcher} needs GPUs and none is visible. Use tools/dist_train.sh on CPUs."
        )
    cfg.setdefault("env_cfg", {})["dist_cfg"] = dict(backend="gloo")
    cfg.sync_bn = None
    cfg.model_wrapper_cfg = dict(
        type="MMDistributedDataParallel",
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )


def run(cfg: Config, task: Callable[[Any], Any]) -> Any:
    """Import what the config names, build its runner, and call ``task`` with it.

    Raises:
        UserError: Bad data, weights, or a config value that a class of the config does not take.
    """
    try:
        import_custom_modules(cfg)
        if cfg.launcher == "pytorch" and not torch.cuda.is_available():
            torch.distributed.init_process_group("gloo")
        from .engine import build_runner

        return task(build_runner(cfg))
    except UserError as error:
        _let_first_rank_speak()
        raise UserError(_without_worker_traceback(str(error))) from error
    except (TypeError, KeyError) as error:
        explained = _explain(cfg, error)
        if explained is None:
            raise
        _let_first_rank_speak()
        raise explained from error


def import_custom_modules(cfg: Config) -> None:
    """Import the modules in which the config's types are registered.

    Raises:
        UserError: One of them, or something it needs, is not installed.
    """
    imports = cfg.get("custom_imports")
    if not imports:
        return
    try:
        import_modules_from_strings(imports["imports"])
    except ImportError as error:
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        raise UserError(
            f"{cfg.filename} needs {', '.join(imports['imports'])}, which cannot be imported: {cause}. "
            "Install what is missing: bash tools/setup_env.sh, or pip install 'mst-toolkit[transfer]'."
        ) from error


def on_first_rank(check: Callable[[], None]) -> None:
    """Run ``check`` in the first of the processes only; the others wait for it when they meet."""
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0:
        check()


def write_metrics(metrics: dict[str, Any], work_dir: str | Path) -> Path:
    """Print the test's mAP or mIoU in per cent, and write all metrics to ``work_dir/test_metrics.json``."""
    path = Path(work_dir, "test_metrics.json")
    plain = {key: float(value) for key, value in metrics.items() if isinstance(value, (int, float))}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=2) + "\n")
    titles = {
        "coco/bbox_mAP": "bbox mAP",
        "coco/segm_mAP": "segm mAP",
        "mIoU": "mIoU",
        "mAcc": "mAcc",
        "aAcc": "aAcc",
    }
    shown = [
        f"{title} {100 * plain[key] if key.startswith('coco/') else plain[key]:.2f}"
        for key, title in titles.items()
        if key in plain
    ]
    print(f"{', '.join(shown)} (per cent; all: {path})", flush=True)
    return path


def torchrun() -> None:
    """``torchrun`` for the ``dist_*.sh`` scripts: ends with a failed process' code, no traceback."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    try:
        main()
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        print(f"a process ended with code {code}; its message stands above", file=sys.stderr, flush=True)
        sys.exit(code if code > 0 else 1)


def _has_key(cfg: Config, key: str) -> bool:
    node: Any = cfg._cfg_dict
    for part in key.split("."):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return False
    return True


def _walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config and its value."""
    items = (
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    )
    for key, value in items:
        yield f"{prefix}{key}", value
        yield from _walk(value, f"{prefix}{key}.")


def _explain(cfg: Config, error: Exception) -> UserError | None:
    """A config value no class takes, or a type nobody registered; None when the config has no part in it."""
    message = str(error.args[0]) if error.args else ""
    unknown = NOT_REGISTERED.match(message)
    if unknown:
        places = [key for key, value in _walk(cfg._cfg_dict) if key.endswith("type") and value == unknown[1]]
        if places:
            return UserError(
                f"{cfg.filename}: {places[0]}='{unknown[1]}' is not a registered type. Correct its spelling, "
                "or add the module that defines it to custom_imports.imports."
            )
    bad = BAD_ARGUMENT.search(message)
    if bad is None:
        return None
    owner, argument = bad[1] or bad[2], bad[3]
    types = dict(_walk(cfg._cfg_dict))
    places = [key for key in types if key.rpartition(".")[2] == argument]
    exact = [key for key in places if types.get(f"{key.rpartition('.')[0]}.type") == owner]
    untyped = [key for key in places if f"{key.rpartition('.')[0]}.type" not in types]
    if not exact and not untyped:
        return None
    return UserError(
        f"{cfg.filename}: {owner} does not take '{argument}', which the config sets at "
        f"{(exact or untyped)[0]}. Remove the key or correct its spelling."
    )


def _let_first_rank_speak() -> None:
    """The same error usually meets every process: the first prints it and ends the job."""
    if int(os.environ.get("RANK", "0")) > 0:
        time.sleep(OTHER_RANK_WAITS)


def _without_worker_traceback(message: str) -> str:
    """PyTorch wraps an error of a data worker in that worker's traceback; keep the message itself."""
    return (
        message.rpartition("UserError: ")[2].strip()
        if "Traceback (most recent call last)" in message
        else message
    )
