"""Texts behind --cfg-options as people type them: what was meant, or a message that names key and value."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.options import ConfigOptions
from tests.promises.option_mutators import CASES, CONFIG, CONFIG_OF_VARIABLES, VARIABLE_CASES
from tests.promises.parameters import as_parameters
from tests.promises.verdicts import NeverIgnored, OptionCase, Refused, Value

OPEN: dict[str, str] = {}  # cases whose verdict does not hold yet, with the reason


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The config of CASES, whose keys are read although they are not MMEngine's, and that of VARIABLE_CASES."""
    folder = tmp_path_factory.mktemp("configs")
    paths = folder / "plain.py", folder / "variables.py"
    for path, text in zip(paths, (CONFIG, CONFIG_OF_VARIABLES), strict=True):
        path.write_text(text)
    return paths


@pytest.fixture
def read_keys(monkeypatch: pytest.MonkeyPatch, configs: tuple[Path, Path]) -> None:
    """The keys of CASES' config are read by something."""
    from mst_pretrain.runtime import options

    keys = Config.fromfile(str(configs[0]))._cfg_dict.keys()
    monkeypatch.setattr(options, "READ", options.READ | (keys - {"data_root"}) | {"note"})


@pytest.mark.parametrize("case", as_parameters(CASES, OPEN))
def test_options(
    case: OptionCase, configs: tuple[Path, Path], read_keys: None, record: Callable[..., None]
) -> None:
    """A run would use another value than the one that was typed."""
    _check(case, configs[0], record)


@pytest.mark.parametrize("case", as_parameters(VARIABLE_CASES, OPEN))
def test_options_of_variables(
    case: OptionCase, configs: tuple[Path, Path], record: Callable[..., None]
) -> None:
    """An option would be accepted and change nothing, or a half of what depends on it."""
    _check(case, configs[1], record)


def _check(case: OptionCase, path: Path, record: Callable[..., None]) -> None:
    verdict = {Value: "value", Refused: "refused", NeverIgnored: "never ignored"}[type(case.outcome)]
    start, found, said = time.perf_counter(), "traceback", ""
    try:
        try:
            cfg = _loaded(path, case.option)
            found = "value"
        except UserError as error:
            found, said = "refused", str(error)
        if found == "value" and isinstance(case.outcome, NeverIgnored):
            arrived = [_plain(_at(cfg, key)) == _plain(case.outcome.value) for key in case.outcome.at]
            found = "value everywhere" if all(arrived) else "half ignored" if any(arrived) else "ignored"
        elif found == "value" and isinstance(case.outcome, Value):
            key, wanted = case.option.partition("=")[0].removeprefix("+"), case.outcome.value
            value = _at(cfg, key)
            if key == "data_root":  # a slash at its end changes nothing
                value, wanted = str(value).rstrip("/"), str(wanted).rstrip("/")
            same = _plain(value) == _plain(wanted) and type(_plain(value)) is type(_plain(wanted))
            found, said = ("value" if same else "another value"), repr(value)
    finally:
        record("option", verdict, found, time.perf_counter() - start)
    if isinstance(case.outcome, NeverIgnored):
        assert found in ("value everywhere", "refused"), said
    else:
        assert found == verdict, said
    if found == "refused":
        assert case.option.partition("=")[0].strip() in said


def _loaded(path: Path, option: str) -> Config:
    """The config as the tools load it; an error of argparse counts as a UserError with its message."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise UserError(message)

    parser = Parser()
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, default={})
    texts = parser.parse_args(["--cfg-options", option]).cfg_options
    return load_config(path, read_options(path, texts))


def _at(cfg: Config, key: str) -> Any:
    """The value at a dotted key; a number is a place in a list."""
    value: Any = cfg._cfg_dict
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
    return value


def _plain(value: Any) -> Any:
    """A list becomes a tuple, and a truth value stays apart from 1 and 0."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return ("truth", value) if isinstance(value, bool) else value
