"""Values of a config that are of another type than the class takes that will be built with them."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from .errors import UserError
from .options import KINDS, walk

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
# What MMEngine's runner builds by its type: pattern of the key, and the registry
SECTIONS = {
    r"model": mmengine.registry.MODELS,
    r"visualizer": mmengine.registry.VISUALIZERS,
    r"\w+_dataloader\.dataset(\.dataset|\.datasets\.\d+)*": mmengine.registry.DATASETS,
    r"\w+_dataloader\..*pipeline\.\d+|tta_pipeline\.\d+": mmengine.registry.TRANSFORMS,
    r"\w+_dataloader\.(batch_)?sampler": mmengine.registry.DATA_SAMPLERS,
    r"\w+_dataloader\.collate_fn": mmengine.registry.FUNCTIONS,
    r"optim_wrapper\.optimizer": mmengine.registry.OPTIMIZERS,
    r"param_scheduler\.\d+": mmengine.registry.PARAM_SCHEDULERS,
    r"(default|custom)_hooks\.\w+": mmengine.registry.HOOKS,
    r"(val|test)_evaluator\.\d+": mmengine.registry.METRICS,
}
# Other values of every config that no constructor's annotation tells
PLACES: dict[str, Any] = {
    r"log_level": Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    r"evaluation": dict | None,
    r"evaluation\.knn": str | None,
    r"evaluation\.every_epochs": float,
    r"optim_wrapper\.paramwise_cfg": dict | None,
    r"optim_wrapper\.paramwise_cfg\.custom_keys": dict[str, dict],
    r"optim_wrapper\.paramwise_cfg\..*_mult": float,
}
SECTION_WORDS = ("a dictionary", "a dictionary or None")
CLIPPING = {"norm": clip_grad_norm_, "value": clip_grad_value_}


def check_sections(cfg: Config) -> None:
    """Raise a UserError for the first section of a config that is not of the kind that MMEngine's runner takes.

    Without it, a text where a dictionary belongs would end in whatever the first reader of it raises. Nothing that the
    config names need be imported.
    """
    kinds = {key: kind for key, kind in _arguments(Runner).items() if key in cfg}
    for key, kind in kinds.items():
        _check_value(cfg, key, cfg[key], dict | None if key == "default_hooks" else kind)
    for key, value, _ in _sections(cfg):
        if isinstance(value, str | int | float):
            example = f"dict(type={value!r}, ...)" if isinstance(value, str) else "dict(type=..., ...)"
            raise UserError(
                f"{cfg.filename}: {key} is {value!r}, which is not a dictionary. Write {example}."
            )
    for key, value in walk(cfg._cfg_dict):
        for pattern, kind in PLACES.items():
            if re.fullmatch(pattern, key):
                _check_value(cfg, key, value, kind)


def _sections(cfg: Config) -> Iterator[tuple[str, Any, Registry]]:
    """Key, value and registry of every value that is built by its type."""
    for key, value in walk(cfg._cfg_dict):
        for pattern, registry in SECTIONS.items():
            if re.fullmatch(pattern, key):
                yield key, value, registry


def _check_names(cfg: Config) -> None:
    """What is built has a type, every type is in its registry, and gradients are clipped by arguments that exist."""
    scope = cfg.get("default_scope")
    with suppress(ImportError):
        import_module(f"{scope}.registry")
    for key, value, registry in _sections(cfg):
        if isinstance(value, Mapping) and "type" not in value:
            raise UserError(f"{cfg.filename}: {key} has no type, which names what is built there. Give one.")
        name = value["type"] if isinstance(value, Mapping) else None
        if isinstance(name, str):
            own = registry.children.get(scope, registry)
            if not _is_known(own, name):
                known = {*own.module_dict, *registry.module_dict}
                raise UserError(unregistered(cfg, f"{key}.type", name, known))
    clip = dict((cfg.get("optim_wrapper") or {}).get("clip_grad") or {})
    function = CLIPPING.get(clip.pop("type", "norm"), clip_grad_norm_)
    kinds = annotations_of(function)
    for name, value in clip.items():
        where = f"optim_wrapper.clip_grad.{name}"
        if name not in kinds:
            raise UserError(
                f"{cfg.filename}: {where} is not an argument of {function.__name__}"
                f"{close_to(name, kinds)}. Correct it."
            )
        _check_value(cfg, where, value, kinds[name])


def _is_known(registry: Registry, name: str) -> bool:
    try:
        return registry.get(name) is not None
    except RuntimeError:  # what MMEngine says of a path that leads nowhere
        return False


def unregistered(cfg: Config, key: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that no registry has."""
    return (
        f"{cfg.filename}: {key}='{name}' is not a registered type{close_to(name, known)}. Correct its spelling, or add "
        "the module that defines it to custom_imports.imports."
    )


def close_to(name: str, known: Iterable[str]) -> str:
    """The known names that are spelled much like one that is not known, as the end of a sentence; maybe empty."""
    by_case = {one.lower(): one for one in known}
    close = [by_case[one] for one in difflib.get_close_matches(name.lower(), by_case, 3)]
    return f"; there are {', '.join(close)}" if close else ""


def _check_value(cfg: Config, key: str, value: Any, kind: Any) -> None:
    if not fits(value, kind):
        remedy = REMEDIES.get(key.rpartition(".")[2], "Correct that value.").format(key=key)
        raise UserError(f"{cfg.filename}: {key} is {value!r}, which is not {words_of(kind)}. {remedy}")


def check_value_types(cfg: Config) -> None:
    """Raise a UserError for the first value that a class does not take: ours, an optimizer, MMEngine's loops and hooks.

    Without it, a text or a fraction where a number of steps belongs would fail in the middle of a run, or be used.
    Only plain types are looked at: numbers, truth values, texts, None, choices, and lists and dictionaries of these.
    Other classes of MMEngine, mmdet, mmseg and mmcv are only held to take a text, where the value is one. The modules
    that the config names must be imported before.
    """
    check_sections(cfg)
    classes = _classes(cfg.get("default_scope"))
    for key, value, kind in _typed_values(cfg._cfg_dict, classes, ""):
        _check_value(cfg, key, value, kind)
    _check_names(cfg)


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
        name = part.get("type")
        built = name if inspect.isclass(name) else classes.get(str(name).rpartition(".")[2])
        built = DataLoader if where.endswith("_dataloader.") else built
        kinds = _arguments(built) if built is not None else {}
        loose = built is None or not built.__module__.startswith(CHECKED)
        yield from (
            (f"{where}{key}", part[key], kind)
            for key, kind in (SHARED | kinds).items()
            if key in part and (not loose or _is_held(part[key], kind))
        )
        inner = list(part.items())
    elif isinstance(part, list | tuple):
        inner = list(enumerate(part))
    else:
        return
    for key, value in inner:
        yield from _typed_values(value, classes, f"{where}{key}.")


def _is_held(value: Any, kind: Any) -> bool:
    """Whether a class whose annotations are loose is held to one: to take a text, or a number for a dictionary."""
    texts = value if isinstance(value, list | tuple) else [value]
    a_number = isinstance(value, int | float) and words_of(kind) in SECTION_WORDS
    return a_number or any(isinstance(one, str) for one in texts)


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
        return isinstance(value, Mapping) and (
            dict not in inner or all(isinstance(one, Mapping) for one in value.values())
        )
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
        return "a dictionary of dictionaries" if dict in inner else "a dictionary"
    return {**KINDS, str: "a text", NoneType: "None", Any: "anything"}.get(kind, str(kind))
