"""Reading a config: overrides whose keys must exist, one data root for all paths, errors that name the key."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import StackSummary, extract_tb, walk_tb
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from mmengine.utils import import_modules_from_strings

from mst_toolkit.resources import find_config

from .errors import DEBUG, InvalidValue, UserError
from .imports import quiet_imports
from .options import ADD, ROOT, above, check_option_keys, is_below, parse_options, walk
from .value_types import annotations_of, check_sections, fits, unregistered, words_of

BAD_ARGUMENT = re.compile(r"(?:(\w+)\.)?(\w+)\(\) got an unexpected keyword argument '(\w+)'")
# MMEngine's functions that call a class with a config's values
BUILDERS = {"from_cfg", "build_from_cfg", "build_dataloader"}
CONSTRUCTORS = {"__init__", "__post_init__"}
SEEDS = 2**32  # numpy's
ENDLESS = ("InfiniteSampler", "MultiSourceSampler", "GroupMultiSourceSampler")  # of MMEngine and mmdet
NOT_REGISTERED = re.compile(r"(\S+) is not in the .+ registry")


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and override keys of it; nothing it names is imported yet.

    Args:
        path: Config file; ``configs/...`` is found in the installation when it is not in this folder.
        options: Dotted key to value. ``data_root`` moves every path; a leading ``+`` adds a key.

    Raises:
        UserError: The file is missing or cannot be executed, a key is not in it, or nothing reads it; see also
            :func:`check_sections`.
    """
    cfg = _read(path)
    options = dict(options or {})
    check_option_keys(cfg, options, cfg.filename)
    if ROOT in options:
        rebase_data_root(cfg, str(options.pop(ROOT)))
    now = dict(walk(cfg._cfg_dict))
    for key, value in [(key.removeprefix(ADD), value) for key, value in options.items()]:
        for name in [*above(key), *([key] if isinstance(value, dict) else [])]:
            if name in now and now[name] is None:  # MMEngine lets no dictionary take its place
                cfg.merge_from_dict({name: {"_delete_": True}})
                now[name] = {}
        cfg.merge_from_dict({key: value})
    check_sections(cfg)
    return cfg


def read_options(path: str | Path, texts: Mapping[str, str], tool: str = "") -> dict[str, Any]:
    """What the texts of ``--cfg-options`` of a tool mean for a config; see :func:`parse_options`."""
    return parse_options(_read(path), texts, tool)


def _read(path: str | Path) -> Config:
    path = find_config(path)
    if path.is_dir():
        raise UserError(f"config {path} is a folder. Name a file in it that ends in .py.")
    if path.exists() and path.suffix != ".py":  # MMEngine's reader of YAML runs what a file names
        raise UserError(
            f"config {path} does not end in .py. Only configs in Python are read: configs are code."
        )
    try:
        cfg = Config.fromfile(str(path), import_custom_modules=False)
    except FileNotFoundError as error:
        raise UserError(
            f"config {path} cannot be read: {error}. mst configs lists those that are installed."
        ) from error
    except UnboundLocalError as error:  # MMEngine raises it where its temporary copy does not fit
        raise UserError(
            f"config {path} cannot be read: {error.__context__}. Free some space, or name another folder for temporary "
            "files: TMPDIR=DIR"
        ) from error
    except SyntaxError as error:
        raise UserError(f"config {path} is not valid Python: {error}. Correct that line.") from error
    except Exception as error:  # whatever the statements of a config, or of one that it inherits, raise
        raise UserError(
            f"config {path} cannot be read: {type(error).__name__}: {error}. Correct it, or what it inherits. "
            f"{DEBUG}=1 shows the line."
        ) from error
    # Its formatting of what is saved takes seconds at every start; fromfile takes the argument and forgets it.
    object.__setattr__(cfg, "_format_python_code", False)
    check_sections(cfg)
    return cfg


def rebase_data_root(cfg: Config, new: str) -> None:
    """Replace the config's data root by ``new`` in every string that is it or starts below it, in place."""
    old = cfg.data_root
    new = new.rstrip("/") or "/"

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = moved(value[key])
        elif isinstance(value, (list, tuple)):
            return type(value)(moved(item) for item in value)
        elif is_below(value, old):
            return new + value[len(old.rstrip("/")) :]
        return value

    moved(cfg._cfg_dict)


def import_custom_modules(cfg: Config) -> None:
    """Import the modules in which the config's types are registered; a UserError names what is not installed."""
    imports = cfg.get("custom_imports")
    if not imports:
        return
    try:
        with quiet_imports():
            import_modules_from_strings(with_registration(imports["imports"]))
    except ImportError as error:
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        if isinstance(cause, UserError):  # it names the remedy
            raise cause from error
        raise UserError(
            f"{cfg.filename} needs {', '.join(imports['imports'])}, which cannot be imported: {cause}. "
            "Install what is missing: bash tools/setup_env.sh, or pip install 'mst-toolkit[transfer]'."
        ) from error


def with_registration(modules: str | Sequence[str]) -> list[str]:
    """The modules of ``custom_imports``, and for ``mst_pretrain`` the one that registers its classes.

    The package itself registers them only where it is imported after MMEngine.
    """
    names = [modules] if isinstance(modules, str) else list(modules)
    return [*names, *(["mst_pretrain.register"] if "mst_pretrain" in names else [])]


def check_seed(cfg: Config) -> None:
    """Raise a UserError where the seed is not one that numpy takes."""
    seed = (cfg.get("randomness") or {}).get("seed")
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < SEEDS):
        raise UserError(
            f"{cfg.filename}: randomness.seed is {seed!r}. Give a whole number from 0 to {SEEDS - 1}."
        )


def check_lengths(cfg: Config, least: int) -> None:
    """Raise a UserError where a training would do nothing, or never end or validate.

    Args:
        cfg: A training's.
        least: Iterations or epochs that it may have.
    """
    train_cfg = cfg.get("train_cfg") or {}
    for name, smallest in (("max_iters", least), ("max_epochs", least), ("val_interval", 1)):
        length = train_cfg.get(name)
        if isinstance(length, int | float) and not smallest <= length < math.inf:
            raise UserError(f"{cfg.filename}: train_cfg.{name} is {length}; it must be at least {smallest}.")
    sampler = ((cfg.get("train_dataloader") or {}).get("sampler") or {}).get("type")
    name = str(sampler).rpartition(".")[2]
    loop = train_cfg.get("type") or ("EpochBasedTrainLoop" if train_cfg.get("by_epoch", True) else "")
    loop = loop if inspect.isclass(loop) else LOOPS.get(loop) if loop else None
    if name in ENDLESS and inspect.isclass(loop) and issubclass(loop, EpochBasedTrainLoop):
        raise UserError(
            f"{cfg.filename}: train_cfg.type is {loop.__name__}, and train_dataloader.sampler is {name}, which never "
            "ends: the first epoch would last forever. Set train_dataloader.sampler.type=DefaultSampler, or a loop of "
            "iterations (train_cfg=dict(type='IterBasedTrainLoop', max_iters=...))."
        )


def explain(cfg: Config, error: Exception) -> UserError | None:
    """Explain an error that the config causes: an unregistered type, or a key or value that a class does not take.

    Returns:
        None for every error that was not raised about an argument of the config; its traceback is needed.
    """
    if error.__suppress_context__ and type(error.__context__) is type(error):  # MMEngine's call of a hook
        error = error.__context__
    message = str(error.args[0]) if error.args else ""
    calls = extract_tb(error.__traceback__)
    if isinstance(error, KeyError):
        return _unregistered(cfg, message) if calls and calls[-1].name in BUILDERS else None
    built = any(call.name in BUILDERS for call in calls)
    if built and (wrong := _wrong_type(cfg, error)):
        return UserError(f"{cfg.filename}: {wrong} Correct that value. {DEBUG}=1 shows where it was refused.")
    if isinstance(error, TypeError):
        return _unknown_argument(cfg, message) if built else None
    if message and (isinstance(error, InvalidValue) or _refused_by_constructor(error, calls)):
        return UserError(
            f"{cfg.filename}: {message.rstrip('.')}. Correct that value. {DEBUG}=1 shows where it was refused."
        )
    return None


def _wrong_type(cfg: Config, error: Exception) -> str | None:
    """The value of the config that a function on the way to an error takes as an argument of another type.

    Only arguments are looked at that have the name and the value of a key: an error about anything else is not the
    config's.
    """
    keys = list(walk(cfg._cfg_dict))
    for frame, _ in walk_tb(error.__traceback__):
        function = _function_of(frame)
        for name, kind in annotations_of(function).items():
            value = frame.f_locals.get(name)
            if value is None or fits(value, kind):
                continue
            for key, held in keys:
                if key.rpartition(".")[2] == name and held == value and type(held) is type(value):
                    return f"{key} is {value!r}, which is not {words_of(kind)}."
    return None


def _function_of(frame: FrameType) -> Any:
    """The function that a frame runs: a constructor, by its object's class, or one of its module."""
    code, own = frame.f_code, frame.f_locals.get("self")
    scopes = [vars(base) for base in type(own).__mro__] if own is not None else [frame.f_globals]
    found = (scope.get(code.co_name) for scope in scopes)
    return next((function for function in found if getattr(function, "__code__", None) is code), None)


def _refused_by_constructor(error: Exception, calls: StackSummary) -> bool:
    """A ``raise`` or ``assert`` in the constructor of another library's class that MMEngine builds from the config.

    A library's subclass of ValueError is about files or text, an error of a function that the constructor calls may be
    about anything, and our own classes raise :class:`InvalidValue`.
    """
    if type(error) not in (ValueError, AssertionError) or not calls or calls[-1].name not in CONSTRUCTORS:
        return False
    caller = next((call.name for call in reversed(calls) if call.name not in CONSTRUCTORS), "")
    return caller in BUILDERS and (calls[-1].line or "").startswith(("raise ", "assert "))


def _unregistered(cfg: Config, message: str) -> UserError | None:
    unknown = NOT_REGISTERED.match(message)
    if unknown is None:
        return None
    for key, value in walk(cfg._cfg_dict):
        if value == unknown[1]:
            return UserError(unregistered(cfg, key, value, ()))
    return None


def _unknown_argument(cfg: Config, message: str) -> UserError | None:
    bad = BAD_ARGUMENT.search(message)
    if bad is None:
        return None
    owner, argument = bad[1] or bad[2], bad[3]
    types = dict(walk(cfg._cfg_dict))
    places = [key for key in types if key.rpartition(".")[2] == argument]
    exact = [key for key in places if types.get(f"{key.rpartition('.')[0]}.type") == owner]
    untyped = [key for key in places if f"{key.rpartition('.')[0]}.type" not in types]
    if not exact and not untyped:
        return None
    return UserError(
        f"{cfg.filename}: {owner} does not take '{argument}', which the config sets at "
        f"{(exact or untyped)[0]}. Remove the key or correct its spelling. {DEBUG}=1 shows who called it."
    )
