"""The command line of a call: positional arguments, options and help from its signature and docstring."""

from __future__ import annotations

import argparse
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union, get_args, get_origin

ALIASES = {  # what tools and other libraries call them
    "score_thr": ("--score-threshold",),
    "precision": ("--dtype",),
    "out": ("--work-dir",),
}


def parser_of(call: Callable[..., Any]) -> argparse.ArgumentParser:
    """The parser of ``mst NAME``.

    Args:
        call: A function of :mod:`mst_toolkit.api`.
    """
    described, meanings = parse_docstring(call)
    parser = argparse.ArgumentParser(prog=f"mst {call.__name__}", description=described, allow_abbrev=False)
    kinds = typing.get_type_hints(call)
    for name, parameter in inspect.signature(call).parameters.items():
        kind, many = plain_type(kinds[name])
        required = parameter.default is inspect.Parameter.empty
        settings: dict[str, Any] = {"help": meanings[name].replace("%", "%%")}
        if get_origin(kind) is Literal:
            settings["choices"] = get_args(kind)
        elif kind is not bool:
            settings |= {"type": kind, "metavar": name.upper().replace("_", "-")}
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            settings |= {"nargs": "+"} if many else {} if required else {"nargs": "?"}
            parser.add_argument(name, **settings)
            continue
        flags = (f"--{name.replace('_', '-')}", *ALIASES.get(name, ()))
        if kind is bool:
            parser.add_argument(*flags, dest=name, action="store_true", **settings)
        else:
            settings |= {"nargs": "+"} if many else {}
            default = None if required else parameter.default
            parser.add_argument(*flags, dest=name, required=required, default=default, **settings)
    return parser


def parse(call: Callable[..., Any], argv: Sequence[str]) -> dict[str, Any]:
    """The arguments of a call from the words behind ``mst NAME``."""
    return vars(parser_of(call).parse_args(argv))


def parse_docstring(call: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What stands before ``Args:`` of a docstring, and the meaning of each argument."""
    text = inspect.getdoc(call) or ""
    described, _, rest = text.partition("\nArgs:\n")
    arguments = re.split(r"\n(?=\S)", rest)[0]
    entries = re.split(r"^    (?=\w+: )", arguments, flags=re.MULTILINE)[1:]
    split = (entry.split(": ", 1) for entry in entries)
    return described.strip(), {name: " ".join(meaning.split()) for name, meaning in split}


def plain_type(hint: Any) -> tuple[Any, bool]:
    """What one word of an argument is, and whether it takes several: ``Sequence[str | Path]`` is (str, True)."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return plain_type(str if str in kinds else kinds[0])
    if get_origin(hint) is Sequence:
        return plain_type(get_args(hint)[0])[0], True
    return hint, False
