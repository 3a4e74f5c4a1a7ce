"""Values of a config that are of another type than the class takes that will be built with them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from torch import Tensor
from torch.utils.data import DataLoader

from .errors import UserError
from .options import KINDS

# Whose annotations are true; MMEngine's schedulers also take floats of whole numbers.
CHECKED = (
    *("mst_pretrain.", "mst_transfer.", "mmengine.hooks.", "mmengine.runner."),
    *("torch.optim.", "torch.utils.data."),
)
# Whose annotations say int or list where another number works too: only texts are held to them.
LOOSE = ("mmengine.", "mmdet.", "mmseg.", "mmcv.")
# Arguments that are the same in every class, also where they are not annotated.
SHARED: dict[str, Any] = {"num_classes": int, "init_cfg": dict | list[dict] | None}
REMEDIES = {
    "init_cfg": "To name a file: --cfg-options +{key}.type=Pretrained +{key}.checkpoint=FILE, or in the config "
    'dict(type="Pretrained", checkpoint="FILE"); to start from random weights: --init random'
}
# Where the classes are of what a dictionary stands for
BUILT = ("mmengine.", "torch.nn.", "torch.utils.data.")


def check_value_types(cfg: Config) -> None:
    """Raise a UserError for the first value that a class does not take: ours, an optimizer, MMEngine's loops and hooks.

    Without it, a text or a fraction where a number of steps belongs would fail in the middle of a run, or be used.
    Only plain types are looked at: numbers, truth values, texts, None, choices, and lists and dictionaries of these.
    Other classes of MMEngine, mmdet, mmseg and mmcv are only held to take a text, where the value is one. The modules
    that the config names must be imported before.
    """
    classes = _classes(cfg.get("default_scope"))
    for key, value, kind in _typed_values(cfg._cfg_dict, classes, ""):
        if not fits(value, kind):
            remedy = REMEDIES.get(key.rpartition(".")[2], "Correct that value.").format(key=key)
            raise UserError(f"{cfg.filename}: {key} is {value!r}, which is not {words_of(kind)}. {remedy}")


def _classes(scope: str | None) -> dict[str, type]:
    """The classes that a config can name: of its scope's library, else of MMEngine, else of another library."""
    roots = [part for part in vars(mmengine.registry).values() if isinstance(part, Registry)]
    registries = [*roots, *(child for root in roots for child in root.children.values())]
    classes: dict[str, type] = {}
    for registry in sorted(registries, key=lambda one: (one.scope != scope, one not in roots)):
        if registry.scope == scope:
            registry.import_from_location()  # else done when the first class is built
        for name, built in registry.module_dict.items():
            if inspect.isclass(built) and built.__module__.startswith(CHECKED + LOOSE):
                classes.setdefault(name, built)
    return classes


def _typed_values(part: Any, classes: Mapping[str, type], where: str) -> Iterator[tuple[str, Any, Any]]:
    """Key, value and annotation of the arguments of all classes that a config names."""
    if isinstance(part, Mapping):
        name = part.get("type") if where else "Runner"  # whose arguments a whole config has
        built = name if inspect.isclass(name) else classes.get(str(name).rpartition(".")[2])
        built = DataLoader if where.endswith("_dataloader.") else built
        kinds = _arguments(built) if built is not None else {}
        loose = built is None or not built.__module__.startswith(CHECKED)
        yield from (
            (f"{where}{key}", part[key], kind)
            for key, kind in (SHARED | kinds).items()
            if key in part and (isinstance(part[key], str) or not loose)
        )
        inner = list(part.items())
    elif isinstance(part, list | tuple):
        inner = list(enumerate(part))
    else:
        return
    for key, value in inner:
        yield from _typed_values(value, classes, f"{where}{key}.")


def _arguments(built: type) -> dict[str, Any]:
    """The annotations of a constructor's arguments, those of base classes too, which take what is handed on."""
    kinds: dict[str, Any] = {}
    for base in reversed(built.__mro__):
        constructor = vars(base).get("__init__")
        if not inspect.isfunction(constructor):
            continue
        hints = annotations_of(constructor)
        for name, argument in inspect.signature(constructor).parameters.items():
            kinds.pop(name, None)
            if name in hints:
                kinds[name] = hints[name] | None if argument.default is None else hints[name]
    return kinds


def annotations_of(function: Any) -> dict[str, Any]:
    """The types that a function's arguments are annotated with, but for those that cannot be told at run time."""
    kinds: dict[str, Any] = {}
    for name, kind in getattr(function, "__annotations__", {}).items():
        try:
            kinds[name] = eval(kind, function.__globals__) if isinstance(kind, str) else kind
        except (NameError, AttributeError, TypeError):  # imported for type checkers alone, or not installed
            continue
    return kinds


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain kind; True for kinds that are not plain."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if kind in (bool, str, NoneType, Tensor):
        return isinstance(value, kind)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (tuple, list, Sequence) and not inner:  # of anything
        return isinstance(value, list | tuple)
    if origin is tuple and Ellipsis not in inner:
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and all(fits(one, inner[0]) for one in value)
    if origin is dict or (inspect.isclass(kind) and issubclass(kind, Mapping)):
        return isinstance(value, Mapping)
    if inspect.isclass(kind) and kind.__module__.startswith(BUILT):
        return isinstance(value, kind)
    return True


def words_of(kind: Any) -> str:
    """A kind as a message names it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        words = (
            words_of(one)
            for one in inner
            if not getattr(one, "__module__", "").startswith(BUILT) and one is not Tensor
        )
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin in (tuple, list, Sequence):
        return f"a list of {', '.join(words_of(one) for one in inner if one is not Ellipsis)}"
    if origin is dict or (inspect.isclass(kind) and issubclass(kind, Mapping)):
        return "a dictionary"
    return {**KINDS, str: "a text", NoneType: "None"}.get(kind, str(kind))
