"""The command line of every call says what its signature says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mst_toolkit import api
from mst_toolkit.arguments import parse, parse_docstring
from mst_toolkit.cli import friendly

NEEDED = {
    "pretrain": ["photos"],
    "finetune": ["detection", "parts"],
    "evaluate": ["run"],
    "predict": ["run", "a.jpg", "b.jpg"],
    "export": ["run", "out"],
    "probe": ["knn", "run", "data"],
    "report": ["one", "two"],
    "compare": ["data", "--starts", "random", "dino"],
    "doctor": [],
}


@pytest.mark.parametrize("call", api.CALLS, ids=lambda call: call.__name__)
def test_a_command_gives_what_the_call_defaults_to(call: Callable[..., Any]) -> None:
    """`mst finetune` would do something else than `mst.finetune` with the same arguments."""
    parsed = parse(call, NEEDED[call.__name__])
    parameters = inspect.signature(call).parameters
    assert list(parsed) == list(parameters)
    given = {name: value for name, value in parsed.items() if value != parameters[name].default}
    words = [word for word in NEEDED[call.__name__] if not word.startswith("--")]
    flat = [word for value in given.values() for word in (value if isinstance(value, list) else [value])]
    assert flat == words


@pytest.mark.parametrize("call", api.CALLS, ids=lambda call: call.__name__)
def test_every_parameter_is_described(call: Callable[..., Any]) -> None:
    """An option would stand in the help without a word."""
    described, meanings = parse_docstring(call)
    assert described.endswith(".") and "\n" not in described
    assert list(meanings) == list(inspect.signature(call).parameters)


def test_words_become_what_the_signature_says() -> None:
    """A number would arrive as text, and old names of options would be refused."""
    words = ["photos", "--epochs", "2.5", "--batch-size", "8", "--resume", "--logger", "wandb", "mlflow"]
    words += ["--work-dir", "x", "--cfg-options", "a=1", "b=2"]
    parsed = parse(api.pretrain, words)
    assert (parsed["epochs"], parsed["batch_size"], parsed["resume"]) == (2.5, 8, True)
    assert (parsed["logger"], parsed["out"]) == (["wandb", "mlflow"], "x")
    assert parsed["cfg_options"] == ["a=1", "b=2"]
    assert parse(api.predict, ["run", "p", "--score-threshold", "0.5"])["score_thr"] == 0.5


@pytest.mark.parametrize(
    ("name", "words", "is_friendly"),
    [
        ("pretrain", ["photos"], True),
        ("pretrain", ["configs/pretrain/mst_deit-s_small-data.py", "8"], False),
        ("predict", ["runs/x", "photos"], True),
        ("predict", ["photos", "--config", "c.py", "--checkpoint", "c.pth", "--out", "d"], False),
        ("compare", ["data", "--starts", "random", "dino"], True),
        ("compare", ["--run", "--configs", "c.py", "--rows", "dino"], False),
        ("compare", ["work_dirs"], False),
        ("train", ["c.py"], False),
    ],
)
def test_old_arguments_still_reach_the_tools(name: str, words: list[str], is_friendly: bool) -> None:
    """A script with `mst predict PHOTOS --config ...` would break."""
    assert (friendly(name, words) is not None) is is_friendly


def test_the_calls_are_the_packages() -> None:
    """`import mst_toolkit as mst; mst.pretrain` of the README would fail."""
    import mst_toolkit

    assert [getattr(mst_toolkit, call.__name__) for call in api.CALLS] == list(api.CALLS)
    assert Path(str(mst_toolkit.__file__)).parent.name == "mst_toolkit"
