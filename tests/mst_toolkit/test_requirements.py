"""What the distribution asks for: the core changes nobody's MMEngine, and every extra that a message names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime import extras
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.runtime.extras import EXTRAS, missing_extra, need

tomllib = pytest.importorskip("tomllib")
ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]


def names(requirements: list[str]) -> set[str]:
    """Names of distributions, with those of our own extras that are asked for."""
    found: set[str] = set()
    for requirement in requirements:
        if inner := re.match(r"mst-toolkit\[(.+)\]", requirement):
            found.update(*(names(OPTIONAL[extra]) for extra in inner[1].split(",")))
        else:
            found.add(re.split(r"[<>=\[ ]", requirement)[0])
    return found


def test_the_core_changes_nobodys_engine() -> None:
    """``pip install mst-toolkit`` beside mmdet would put onedl-mmengine over its mmengine."""
    assert names(PROJECT["dependencies"]) == {
        *("torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "filelock")
    }


def test_the_two_stacks_do_not_mix() -> None:
    """One extra would install both distributions of MMEngine, which own the same files."""
    maintained, originals = names(OPTIONAL["transfer"]), names(OPTIONAL["openmmlab"])
    assert {"onedl-mmengine", "onedl-mmcv", "opencv-python-headless", "jinja2"} <= maintained
    assert {"mmengine", "mmcv-lite", "mmdet", "mmsegmentation"} <= originals
    assert not any(name.startswith("onedl") for name in originals)
    assert not maintained & {"mmengine", "mmcv", "mmcv-lite", "mmdet", "mmsegmentation"}


def test_every_extra_of_a_message_exists() -> None:
    """A message would name an extra that pip does not know."""
    assert set(EXTRAS) <= set(OPTIONAL)


def test_a_missing_package_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command without its extra would end in a traceback; a broken package would be called missing."""
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "jinja2")

    def report() -> None:
        raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")

    with pytest.raises(SystemExit) as ended:
        run_cli(report)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: this needs the package 'jinja2', which is not installed. "
        "Install it: pip install 'mst-toolkit[report]'\n"
    )
    with pytest.raises(UserError, match=r"mst-toolkit\[report\]"):
        need("matplotlib", "jinja2")
    assert (
        missing_extra(ModuleNotFoundError("x", name="matplotlib.gone")) is None
    )  # installed, but another version
    assert missing_extra(ModuleNotFoundError("x", name="my_hooks")) is None


def test_the_choices_of_the_command_line_are_the_formats() -> None:
    """A format could be read or written and not be asked for, or the other way round."""
    from mst_pretrain.checkpoints import choices, formats

    assert choices.FORMAT_NAMES == tuple(formats.BY_NAME)
    assert choices.TARGET_NAMES == tuple(formats.TARGETS)
