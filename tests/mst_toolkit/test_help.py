"""Help answers at once: no command imports torch before its arguments are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
HEAVY = ("torch", "timm", "mmengine", "cv2", "numpy", "matplotlib", "mmdet", "mmseg", "onnx")
# runs a script as __main__ and ends with the names of HEAVY that it imported
WATCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
print("IMPORTED", *(name for name in HEAVY if name in sys.modules))
"""


def imported(*command: str) -> tuple[str, list[str]]:
    """What a script printed, and the heavy packages that it imported."""
    code = WATCH.replace("HEAVY", repr(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output, _, names = done.stdout.rpartition("IMPORTED")
    return output, names.split()


@pytest.mark.parametrize("name", TOOLS)
def test_the_help_of_a_tool_imports_no_library(name: str) -> None:
    """``--help`` would wait seconds for torch, and end in an ImportError where an extra is not installed."""
    output, names = imported(f"tools/{name}", "--help")
    assert "usage:" in output and names == []


def test_the_help_of_the_command_imports_no_library() -> None:
    """``mst --help`` would wait for torch."""
    output, names = imported("tests/mst_toolkit/mst_command.py", "--help")
    assert "convert_checkpoint" in output and names == []


@pytest.mark.parametrize("name", ["convert_checkpoint", "train"])
def test_the_help_of_a_command_imports_no_library(name: str) -> None:
    """``mst train --help`` would wait for torch."""
    output, names = imported("tests/mst_toolkit/mst_command.py", name, "--help")
    assert "usage:" in output and names == []
