"""``--cfg-options KEY=VALUE``: keys that the config has and something reads, values of the kind that stands there."""

from __future__ import annotations

import argparse
import ast
import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

ADD = "+"
ROOT = "data_root"
SHOWN = 6  # keys that a message names
# Keys of a config that are read after it was loaded: by MMEngine's runner, then by this toolkit. Others are variables
# that the config has put into these.
READ = frozenset(
    [
        "model",
        "work_dir",
        "train_dataloader",
        "val_dataloader",
        "test_dataloader",
        "train_cfg",
        "val_cfg",
        "test_cfg",
        "auto_scale_lr",
        "optim_wrapper",
        "param_scheduler",
        "val_evaluator",
        "test_evaluator",
        "default_hooks",
        "custom_hooks",
        "data_preprocessor",
        "load_from",
        "resume",
        "launcher",
        "env_cfg",
        "log_processor",
        "log_level",
        "visualizer",
        "default_scope",
        "randomness",
        "experiment_name",
        "model_wrapper_cfg",
        "sync_bn",
        "efficient_conv_bn_eval",
        "compile",
        "custom_imports",
        "runner_type",
        "find_unused_parameters",
        "tta_model",
        "tta_pipeline",
        "allow_unused",
        "run_folder",
        "loggers",
        "evaluation",
    ]
)
# Of these, what a tool does not read. A test takes a training's options, by which its record names the training.
TTA = frozenset(["tta_model", "tta_pipeline"])
SET_BY_TOOL = frozenset(["val_dataloader", "val_cfg", "val_evaluator", "load_from", "resume"])
UNREAD: dict[str, frozenset[str]] = {
    "": frozenset(),
    "tools/train.py": frozenset(["test_cfg", "test_evaluator", *TTA]),
    "tools/eval_dense.py": TTA,
    "tools/test.py": SET_BY_TOOL | TTA,
    "tools/test.py --tta": SET_BY_TOOL,
    "tools/predict.py": SET_BY_TOOL | TTA | {"test_cfg", "test_evaluator"},
    "tools/predict.py --tta": SET_BY_TOOL | {"test_cfg", "test_evaluator"},
}
# Endings of keys whose value is a text, even if it is 2024
PATHS = ("_from", "_root", "_dir", "_file", "checkpoint")
SCHEDULED = {"optim_wrapper.optimizer.lr": "base_lr", "optim_wrapper.optimizer.weight_decay": "weight_decay"}
SWITCH = {"true": True, "false": False, "1": True, "0": False}
KINDS: dict[type, str] = {bool: "True or False", int: "a whole number", float: "a number"}


class ConfigOptions(argparse.Action):
    """``--cfg-options KEY=VALUE ...`` as texts by key; :func:`parse_options` knows what they mean."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        """Split the pairs; refuse a missing ``=`` and a key that is given twice."""
        options = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, equals, text = pair.partition("=")
            if not equals:
                parser.error(
                    f"--cfg-options takes KEY=VALUE pairs, got '{pair}'. Put quotes around a value with spaces"
                )
            if key in options:  # also what a shell makes of data_root=train-{0..9}.tar without quotes
                parser.error(
                    f"--cfg-options has {key} more than once. Give it once; put quotes around braces"
                )
            options[key] = text
        setattr(namespace, self.dest, options)


def is_read(key: str, tool: str) -> bool:
    """Whether one of the tools in :data:`UNREAD` reads a dotted key of a config; the empty name is any tool."""
    part = key.removeprefix(ADD).partition(".")[0]
    return part == ROOT or part in READ - UNREAD[tool]


def check_option_keys(cfg: Config, options: Mapping[str, Any], path: str | Path, tool: str = "") -> None:
    """Raise a UserError for a key that the config lacks, unless ``+`` adds it, or that the tool does not read."""
    now = dict(walk(cfg._cfg_dict))
    known = list(now)
    plain = [key.removeprefix(ADD) for key in options]
    for key, name in zip(options, plain, strict=True):
        if not key.startswith(ADD) and name not in known:
            parent = key.rpartition(".")[0]
            siblings = [name for name in known if parent and name.startswith(f"{parent}.")]
            close = difflib.get_close_matches(key, siblings, 1) or difflib.get_close_matches(key, known, 1)
            nearest = f" Did you mean '{close[0]}'?" if close else ""
            raise UserError(
                f"{path} has no key '{key}' (--cfg-options).{nearest} To add a new key write {ADD}{key}=..."
            )
        outer = next(
            (other for other in plain if name.startswith(f"{other}.") or plain.count(name) > 1), None
        )
        if outer is not None:
            raise UserError(
                f"--cfg-options sets both {outer} and {name}, one inside the other. Give one of them."
            )
        single = next(
            (part for part in above(name) if not isinstance(now.get(part), dict | list | tuple | None)), None
        )
        if single is not None:
            raise UserError(
                f"{path}: --cfg-options {key}=...: {single} is {_short(now[single])} there, which has no keys."
            )
        if name == ROOT and ROOT in cfg:
            _check_data_root(cfg, options[key], path)
        elif name.startswith("data_preprocessor") and "data_preprocessor" in (cfg.get("model") or {}):
            raise UserError(
                f"{path}: --cfg-options {key}=... would change nothing: the model has its own. Set model.{name}."
            )
        elif not is_read(name, tool):
            remedy = _remedy_of_tool(cfg, name, tool) if is_read(name, "") else _remedy(cfg, name)
            raise UserError(f"{path}: --cfg-options {key}=... would change nothing. {remedy}")


def _check_data_root(cfg: Config, new: Any, path: str | Path) -> None:
    """Something that is read must be below the config's data root, else nothing would follow the new one."""
    if new in ("", None, "None"):  # an empty variable of a shell would make it /
        raise UserError(
            f"{path}: --cfg-options {ROOT}={new} is empty, and the config's paths start with it. Give the folder of "
            "the data."
        )
    if not any(
        key.partition(".")[0] in READ and is_below(value, cfg[ROOT]) for key, value in walk(cfg._cfg_dict)
    ):
        raise UserError(
            f"{path}: --cfg-options {ROOT}=... would change nothing: no path in the config is below its {ROOT}, "
            f"'{cfg[ROOT]}'. Set the keys that name the data, such as train_dataloader.dataset.{ROOT}."
        )


def is_below(value: Any, root: Any) -> bool:
    """Whether a value of a config is its data root or a path that starts with it."""
    root = root.rstrip("/") if isinstance(root, str) else ""
    return bool(root) and isinstance(value, str) and (value == root or value.startswith(f"{root}/"))


def above(key: str) -> list[str]:
    """The keys that a dotted key stands below, outermost first."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _remedy_of_tool(cfg: Config, name: str, tool: str) -> str:
    """What to do instead of overriding what another tool reads."""
    part, dot, rest = name.partition(".")
    with_tta = f"{tool} --tta"
    if with_tta in UNREAD and is_read(name, with_tta):
        return f"{tool} reads {part} with --tta only. Add --tta."
    other = part.replace("val_", "test_") if part.startswith("val_") else part.replace("test_", "val_")
    instead = f" Set {other}{dot}{rest}." if other != part and other in cfg and is_read(other, tool) else ""
    parts = [key for key in cfg if is_read(key, tool) and key.startswith(("train_", "val_", "test_", "tta_"))]
    return f"{tool} does not read {part}, but {', '.join(parts)}.{instead or ' Leave it out.'}"


def _remedy(cfg: Config, name: str) -> str:
    """What to do instead of overriding a variable that the config has used."""
    variable, dot, rest = name.partition(".")
    if variable not in cfg:
        close = difflib.get_close_matches(variable, READ, 1)
        nearest = f" Did you mean '{close[0]}'?" if close else ""
        return f"Nothing reads a key '{variable}'.{nearest}"
    value = cfg._cfg_dict[variable]
    holders = [
        f"{key}{dot}{rest}"
        for key, held in walk(cfg._cfg_dict)
        if held == value and type(held) is type(value) and key.partition(".")[0] in READ
    ]
    text = f"'{variable}' is a variable, which the config has used already. Edit it in a copy of the file that sets it"
    more = f" and {len(holders) - SHOWN} more" if len(holders) > SHOWN else ""
    others = f", or set the keys that have its value: {', '.join(holders[:SHOWN])}{more}" if holders else ""
    return f"{text}{others}."


def parse_options(cfg: Config, texts: Mapping[str, str], tool: str = "") -> dict[str, Any]:
    """The values that the texts of ``--cfg-options`` mean, each of the kind that the config has at its key.

    A text or a path stays exactly as typed. ``None`` is None, which ``data_root`` cannot be. Lists and tuples have
    MMEngine's syntax, ``[a,b]``, ``(a,b)`` or ``a,b``, and their elements the kind of those that the config has; one
    text alone is a list of one. Where the config has None or nothing, or with a leading ``+``, a literal is what it is
    and all else is a text.

    Raises:
        UserError: A key is not in the config or the tool does not read it, or a value is of another kind.
    """
    path = cfg.filename
    check_option_keys(cfg, texts, path, tool)
    now = dict(walk(cfg._cfg_dict))
    hook = (cfg.get("default_hooks") or {}).get("schedule") or {}
    found: dict[str, Any] = {}
    for key, text in texts.items():
        name = key.removeprefix(ADD)
        if name in SCHEDULED and hook.get("type") == "ScheduleHook":
            raise UserError(
                f"{path}: --cfg-options {key}=... would change nothing: the schedule sets it in every step. "
                f"Set default_hooks.schedule.{SCHEDULED[name]}."
            )
        if name == ROOT or (name.endswith(PATHS) and text != "None" and not isinstance(now.get(name), dict)):
            found[name if name == ROOT else key] = text
            continue
        try:
            found[key] = _value(text, None if key.startswith(ADD) else now[name])
        except ValueError as error:
            raise UserError(f"{path}: --cfg-options {key}={text}: {error}") from error
    return found


def _value(text: str, now: Any) -> Any:
    """What a text means where the config has ``now``; a ValueError says what it should be."""
    if text == "None":
        return None
    if now is None:
        return _literal(text)
    if isinstance(now, dict):
        raise ValueError(
            f"the config has the keys {', '.join(map(str, now))} there. Set one of them, or None."
        )
    if isinstance(now, (list, tuple)):
        return _sequence(text, now)
    if isinstance(now, str):
        return text
    kind = next((kind for kind in KINDS if isinstance(now, kind)), None)
    if kind is None:
        return _literal(text)
    try:
        value = SWITCH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        value = math.nan
    if not math.isfinite(value) and math.isfinite(now):
        wanted = "a finite number" if math.isinf(value) else KINDS[kind]
        raise ValueError(
            f"'{text}' is not {wanted}, which the config has there ({now}). Correct it, or put a {ADD} before the "
            "key to set a value of another kind."
        )
    return value


def _sequence(text: str, now: list[Any] | tuple[Any, ...]) -> list[Any] | tuple[Any, ...]:
    """Elements of the kind of the config's, where these are all of one."""
    inside = _brackets(text)
    parts = _parts(text if inside is None else inside)
    kinds = {type(element) for element in now}
    one = now[0] if len(kinds) == 1 else 0.0 if kinds == {int, float} else None
    if inside is None and "," not in text and not (isinstance(one, str) and parts):
        raise ValueError(f"the config has a list there ({_short(now)}). Write ({text}) for a list of one.")
    if isinstance(one, str):
        values: list[Any] = list(parts)
        if not values:
            raise ValueError(f"the config has texts there ({_short(now)}). Give one or more.")
    elif isinstance(one, (list, tuple)):
        values = [_value(part, one) for part in parts]
    else:  # numbers, in brackets of their own also where the config has none
        values = [_value(part, None if _brackets(part) is not None else one) for part in parts]
    as_list = isinstance(now, list) if inside is None else text.strip()[0] == "["
    return values if as_list else tuple(values)


def _literal(text: str) -> Any:
    """A number, True, False, None, a quoted text, a dict or a list of such; else the text as it is."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return _sequence(text, []) if _brackets(text) is not None else text
    if isinstance(value, tuple) and text.strip()[0] != "(":
        return list(value)
    if not isinstance(value, tuple) and _brackets(text) is not None and text.strip()[0] == "(":
        return (value,)  # as MMEngine reads it
    return value if isinstance(value, (int, float, str, list, tuple, dict)) else text


def _brackets(text: str) -> str | None:
    """What one pair of brackets around a whole text encloses; None without it."""
    text = text.strip()
    return text[1:-1] if text[:1] + text[-1:] in ("()", "[]") and len(_parts(text)) == 1 else None


def _parts(text: str) -> list[str]:
    """Split at commas outside brackets and quotes; spaces inside an element stay, quotes around it go."""
    parts, depth, quote, start = [], 0, "", 0
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and not text[start:place].strip(" (["):
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    if depth or quote:
        raise ValueError("a bracket or a quotation mark has no partner. Close it.")
    if text[start:].strip():  # else a comma at the end, or nothing at all
        parts.append(text[start:])
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise ValueError("it has an empty element between two commas. Remove a comma.")
    return [
        part[1:-1] if part[0] in "\"'" and part[0] == part[-1] and len(part) > 1 else part for part in parts
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config and its value."""
    items = (
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    )
    for key, value in items:
        yield f"{prefix}{key}", value
        yield from walk(value, f"{prefix}{key}.")
