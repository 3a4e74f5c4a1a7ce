"""The ``mst`` command: every tool and config of the repository, from a clone or from an installed wheel.

    mst                              # the tools and what they do
    mst configs [TEXT]               # the configs, those with TEXT in their name
    mst train CONFIG [arguments]     # the same as python tools/train.py
    mst dist_train CONFIG 8          # the same as bash tools/dist_train.sh
    mst --version

CONFIG may start with ``configs/`` in any folder: what is not there is taken from the installation.
"""

from __future__ import annotations

import ast
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .resources import resources

ONLY_IN_A_CLONE = ("setup_env", "run_tests", "launch_env")


def tools() -> dict[str, Path]:
    """Every tool by its name; a Python file before a script of the same name."""
    folder = resources() / "tools"
    found = [*sorted(folder.glob("*.sh")), *sorted(folder.glob("*.py"))]
    return {path.stem: path for path in found if path.stem not in ONLY_IN_A_CLONE}


def describe(tool: Path) -> str:
    """The first line of what a tool says of itself."""
    text = tool.read_text()
    if tool.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    return text.splitlines()[1].removeprefix("# ")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named tool with the remaining arguments; without one, list them.

    Raises:
        UserError: There is no such tool, or no tools at all.
    """
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-V", "--version"):
        print(f"mst-toolkit {__version__}")
        return 0
    if name in ("-h", "--help"):
        print(__doc__)
        print("\n".join(f"  {tool:20} {describe(path)}" for tool, path in sorted(tools().items())))
        return 0
    if name == "configs":
        folder = resources()
        configs = (str(path.relative_to(folder)) for path in sorted(folder.glob("configs/*/*.py")))
        shown = [
            config for config in configs if "_base_" not in config and all(a in config for a in arguments)
        ]
        print(f"in {folder}:", *shown, sep="\n  ")
        return 0
    tool = tools().get(name)
    if tool is None:
        from mst_pretrain.runtime.errors import UserError

        raise UserError(f"there is no tool '{name}'. mst --help lists them.")
    if tool.suffix == ".sh":
        os.environ.setdefault("PYTHON", sys.executable)
        os.execvp("bash", ["bash", str(tool), *arguments])
    sys.argv = [str(tool), *arguments]
    runpy.run_path(str(tool), run_name="__main__")
    return 0


def console() -> None:
    """Entry point of the ``mst`` script: ends as every tool does, see ``mst_pretrain.runtime.errors.run_cli``."""
    try:
        code = main()
    except Exception as error:
        from mst_pretrain.runtime.errors import run_cli

        failure = error

        def fail() -> int:
            raise failure

        run_cli(fail)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    console()
