"""Which errors are told as the user's mistake, and which go through whole with their traceback."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner

from mst_pretrain.method.proven import create_trunk
from mst_pretrain.runtime.config import explain
from mst_pretrain.runtime.errors import InvalidValue, UserError, run_cli
from mst_pretrain.training.launch import run

MakeConfig = Callable[..., Config]


def raised(function: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


class Layer:
    """Of another library: its constructor refuses, and so may what it calls."""

    def __init__(self, width: int = 1, file: Any = None, rows: Any = None, options: Any = None) -> None:
        if width < 1:
            raise ValueError(f"width must be positive, got {width}")
        assert width < 100, f"width {width} is too large"
        if file is not None:
            self.content = json.loads(Path(file).read_text())
        if rows is not None:
            self.rows = np.asarray(rows, np.float32)
        if options is not None:
            self.look_up(**options)

    def look_up(self, size: int) -> None:
        if size < 1:
            raise ValueError("there is nothing of this name in the table")
        {}["missing"]


class Wide(Layer):
    """Hands its width on."""

    def __init__(self, width: int) -> None:
        super().__init__(width)


@dataclasses.dataclass
class Recipe:
    size: int = 1

    def __post_init__(self) -> None:
        assert self.size > 0, f"size must be positive, got {self.size}"


class Ours:
    """As a class of the toolkit checks its arguments."""

    def __init__(self, share: float) -> None:
        self.check(share)

    @staticmethod
    def check(share: float) -> None:
        if share > 1:
            raise InvalidValue(f"share must be in [0, 1], got {share}")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes above, for one test."""
    monkeypatch.setattr(MODELS, "_module_dict", dict(MODELS._module_dict))
    for module in (Layer, Wide, Recipe, Ours):
        MODELS.register_module(module=module, force=True)


def told(layer: dict[str, Any]) -> UserError | None:
    cfg = Config({"layer": layer}, filename="a.py", cfg_text=" ")
    return explain(cfg, raised(lambda: MODELS.build(cfg.layer)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (dict(type="Layer", width=0), "width must be positive, got 0"),
        (dict(type="Wide", width=0), "width must be positive, got 0"),
        (dict(type="Wide", width=100), "width 100 is too large"),
        (dict(type="Recipe", size=0), "size must be positive, got 0"),
        (dict(type="Ours", share=2), "share must be in [0, 1], got 2"),
    ],
)
def test_a_refused_value_of_the_config_is_told(layer: dict[str, Any], message: str) -> None:
    """A user would read a traceback where one value has to be corrected."""
    error = told(layer)
    assert error is not None
    assert str(error).startswith(f"a.py: {message}") and "Correct that value. MST_DEBUG=1" in str(error)


@pytest.mark.parametrize(
    "layer",
    [
        dict(type="Layer", rows=[[1], [1, 2]]),
        dict(type="Layer", file=__file__),
        dict(type="Layer", options=dict(size=0)),
        dict(type="Layer", options=dict(size=1)),
    ],
    ids=["numpy", "json", "raised by a function", "KeyError"],
)
def test_an_error_in_the_middle_of_building_is_not_told(layer: dict[str, Any]) -> None:
    """A defect or a damaged file would be called a wrong value of the config, its traceback lost."""
    assert told(layer) is None


def test_only_a_call_with_the_configs_values_is_told() -> None:
    """A defect in a training step would be blamed on a key of the config that has the argument's name."""

    def step(wide: int) -> None: ...

    cfg = Config({"layer": dict(type="Layer", widht=1), "crops": dict(size=2)}, filename="a.py", cfg_text=" ")
    message = str(explain(cfg, raised(lambda: MODELS.build(cfg.layer))))
    assert "Layer does not take 'widht', which the config sets at layer.widht" in message
    assert explain(cfg, raised(lambda: step(size=1))) is None  # type: ignore[call-arg]
    missing = KeyError("Layer is not in the mmengine::model registry")
    assert explain(cfg, missing) is None


class Rows:
    """A user's data set that fails while it is read."""

    def __init__(self, data_root: str, broken: str) -> None:
        self.data_root, self.broken = data_root, broken
        self.full_init()

    def full_init(self) -> None:
        if self.broken == "numpy":
            np.zeros(3).reshape(2, 2)
        raise AssertionError("an index is out of order")


@pytest.mark.parametrize(
    ("broken", "kind", "words"),
    [("numpy", ValueError, "cannot reshape"), ("assertion", AssertionError, "out of order")],
)
def test_a_users_data_set_keeps_its_traceback(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, broken: str, kind: type, words: str
) -> None:
    """The author of a data set would be told to correct a value of the config, and not see the failing line."""
    monkeypatch.setattr(DATASETS, "_module_dict", {**DATASETS._module_dict, "Rows": Rows})
    cfg = toy_config()
    cfg.train_dataloader.dataset = dict(type="Rows", data_root="x", broken=broken)
    cfg.launcher = "none"
    with pytest.raises(kind, match=words) as caught:
        run(cfg, Runner.train)
    assert caught.traceback[-1].name == "full_init"


def test_a_hooks_error_before_the_first_step_keeps_its_traceback(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a hook does before the training would be called a wrong value."""

    class Early(Hook):
        def before_train(self, runner: Runner) -> None:
            raise ValueError("the table has two rows of one name")

    monkeypatch.setattr(HOOKS, "_module_dict", {**HOOKS._module_dict, "Early": Early})
    cfg = toy_config()
    cfg.custom_hooks = [dict(type="Early")]
    cfg.launcher = "none"
    with pytest.raises(ValueError, match="two rows of one name"):
        run(cfg, Runner.train)


def test_timms_checks_name_the_model() -> None:
    """A head count that timm refuses would end in a traceback."""
    with pytest.raises(InvalidValue, match=r"vit_tiny_patch16_224: .*divisible"):
        create_trunk("vit_tiny_patch16_224", embed_dim=10, num_heads=3)


def test_debugging_shows_the_whole_chain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody could find where a value was refused."""

    def fail() -> int:
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise UserError("a.pth is truncated. Copy it again.") from error

    last = "error: a.pth is truncated. Copy it again.\n"
    for value in (None, "0"):
        monkeypatch.delenv("MST_DEBUG", raising=False)
        if value is not None:
            monkeypatch.setenv("MST_DEBUG", value)
        with pytest.raises(SystemExit, match="2"):
            run_cli(fail)
        assert capsys.readouterr().err == last
    monkeypatch.setenv("MST_DEBUG", "1")
    with pytest.raises(SystemExit, match="2"):
        run_cli(fail)
    said = capsys.readouterr().err
    assert said.endswith(f"mst_pretrain.runtime.errors.UserError: a.pth is truncated. Copy it again.\n{last}")
    assert said.count("Traceback (most recent call last)") == 2 and "KeyError: 'the cause'" in said
