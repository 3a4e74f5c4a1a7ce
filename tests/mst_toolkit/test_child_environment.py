"""Tools and benchmarks that start a tool keep the user's PYTHONPATH; tools work in any folder."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import full_size
from examples.quickstart.tasks import Plan, ToolCall
from mst_transfer.comparison import runs
from studies import overfit
from studies.parts.jobs import Jobs
from tests.qa import hostile_files, kill_while_writing, mutation_check

ROOT = Path(__file__).parents[2]


class Started(Exception):
    """A child would run now."""


def killed_writer(folder: Path) -> None:
    victim = kill_while_writing.tool_victim(folder / "victim")
    victim.actions[0]()


STARTERS: dict[str, Callable[[Path], Any]] = {
    "overfit": lambda folder: overfit.call("train"),
    "hostile_files": lambda folder: hostile_files.run_process([]),
    "mutation_check": lambda folder: mutation_check.run_tests(ROOT, "mst_pretrain"),
    "kill_while_writing": killed_writer,
    "full_size": lambda folder: full_size.measure(
        Path("x.py"), argparse.Namespace(init=None, amp=False), {}, folder
    ),
    "study": lambda folder: Jobs().call(["x.py"], folder / "log"),
    "compare": lambda folder: runs._call(["x"]),
    "quickstart": lambda folder: Plan(ROOT, {"x": 1.0}).run("x", [ToolCall("x", ["x.py"], folder / "log")]),
}


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of the next child process, which is not started."""
    seen: dict[str, str] = {}

    def start(*args: Any, env: dict[str, str] | None = None, **kwargs: Any) -> Any:
        seen.update(env or args[-1])
        raise Started

    for name in ("run", "call", "Popen"):
        monkeypatch.setattr(subprocess, name, start)
    monkeypatch.setattr(os, "execve", start)
    monkeypatch.setattr(os, "dup2", lambda *args: None)
    monkeypatch.setattr(full_size, "options_of", lambda *args: [])
    monkeypatch.setattr(kill_while_writing, "TOOL_MODEL", "vit_tiny_patch16_224")
    return seen


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("given", [None, "", "mine", f"mine{os.pathsep}/opt/lib"])
def test_a_child_finds_the_toolkit_and_then_what_the_user_named(
    child: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starter: str, given: str | None
) -> None:
    """A module of the user's would be found by the tool, but not by the tools that it starts."""
    monkeypatch.chdir(tmp_path)
    if given is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", given)
    with pytest.raises(Started):
        STARTERS[starter](tmp_path)
    expected = {None: [], "": [], "mine": [tmp_path / "mine"]}.get(given, [tmp_path / "mine", "/opt/lib"])
    assert child["PYTHONPATH"].split(os.pathsep) == [str(ROOT), *map(str, expected)]


def test_a_users_module_is_found_from_another_folder(tmp_path: Path) -> None:
    """A tool would work only in the clone, or a config could not name a hook of the user's own."""
    for folder in ("modules", "photos", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "modules/my_hooks.py").write_text("print('my hooks are here', flush=True)\n")
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{index}.png")
    (tmp_path / "elsewhere/config.py").write_text(
        f"_base_ = {str(ROOT / 'configs/quickstart/pretrain.py')!r}\n"
        "custom_imports = dict(imports=['mst_pretrain', 'my_hooks'])\n"
        "model = dict(head=dict(prototypes=32))\n"
        "train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)\n"
        "train_cfg = dict(max_iters=1)\n"
    )
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": f"../modules{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "PORT": "29761",
    }
    done = subprocess.run(  # which starts tools/train.py
        ["bash", str(ROOT / "tools/dist_train.sh"), "config.py", "1", "--cfg-options", "data_root=../photos"],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my hooks are here" in done.stdout and "Step 1: input" in done.stdout + done.stderr
    assert (tmp_path / "elsewhere/work_dirs/config/latest.pth").is_file()
