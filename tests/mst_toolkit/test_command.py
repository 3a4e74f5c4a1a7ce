"""The ``mst`` command as pyproject.toml names it: quick where it only tells, one message where it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from {module} import {function}
sys.argv[0] = "mst"
{function}()
"""


def mst(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The console script, as pip writes it; the last line of stderr says whether torch was imported."""
    entry = re.search(r'^mst = "([\w.]+):(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert entry is not None
    code = CODE.format(module=entry[1], function=entry[2])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], r"The ``mst`` command.*\n  convert_checkpoint  .*\n  train  +Train any config.*"),
        ([], r"The ``mst`` command.*\n  train  +Train any config.*"),
        (["configs", "deit-s_8xb128"], r"in .*:\n  configs/pretrain/mst_deit-s_8xb128-300e_in1k\.py\n"),
        (["--version"], r"mst-toolkit \d+\.\d+\.\d+\n"),
        (["-V"], r"mst-toolkit \d+\.\d+\.\d+\n"),
    ],
)
def test_what_only_tells_does_not_import_torch(arguments: list[str], expected: str) -> None:
    """Whoever mistypes or asks for help would wait some seconds; --version would be taken for a tool."""
    start = time.monotonic()
    done = mst(*arguments)
    print(f"mst {' '.join(arguments)}: {time.monotonic() - start:.2f} s")
    assert done.returncode == 0 and done.stderr == "False\n"
    assert re.fullmatch(expected, done.stdout, re.DOTALL)


def test_a_mistyped_tool_is_one_message() -> None:
    """The quick way in would end in a traceback where the tools end in a message."""
    done = mst("trian")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == ["error: there is no command 'trian'. mst --help lists them.", "False"]


def test_a_tool_ends_with_its_own_message_and_code() -> None:
    """A tool's failure would be reported twice, or as success."""
    done = mst("inspect_checkpoint", "absent.pth")
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and "absent.pth" in done.stderr


@pytest.mark.parametrize(
    ("platform", "bash", "why"), [("win32", "C:/bash", "Windows"), ("linux", None, "bash is")]
)
def test_a_script_says_where_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch, platform: str, bash: str | None, why: str
) -> None:
    """Windows would start bash beside the prompt, or Python end with a FileNotFoundError."""
    from mst_pretrain.runtime.errors import UserError
    from mst_toolkit import cli

    monkeypatch.setattr(cli.sys, "platform", platform)
    monkeypatch.setattr(cli.shutil, "which", lambda _: bash)
    monkeypatch.setattr(cli.os, "execvp", lambda *_: pytest.fail("it was started"))
    with pytest.raises(
        UserError, match=rf"mst dist_train is a bash script, and {why}.*mst train CONFIG.*WSL"
    ):
        cli.run_script("dist_train", ROOT / "tools/dist_train.sh", ["a.py", "8"])
