"""The ``mst`` command: own photos and own labels in five commands, and every tool and config of the repository.

    mst doctor PHOTOS                                        # look at data, machine and plan before anything runs
    mst pretrain PHOTOS                                      # a backbone from images without labels
    mst finetune detection DATA --init runs/PHOTOS_vit-small # a detector, or a segmentor, from it
    mst evaluate RUN                                         # scores per class, with intervals
    mst predict RUN PHOTOS --out DIR                         # pictures and result files

    mst configs [TEXT]               # the full MMEngine configs, those with TEXT in their name
    mst train CONFIG [arguments]     # the same as python tools/train.py
    mst dist_train CONFIG 8          # the same as bash tools/dist_train.sh
    mst --version

CONFIG may start with ``configs/`` in any folder: what is not there is taken from the installation.
"""

from __future__ import annotations

import ast
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__, api
from .arguments import parse, parse_docstring
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


def friendly(name: str, arguments: Sequence[str]) -> Callable[..., Any] | None:
    """The call of that name, unless the arguments are those that the tool of the same name has always had."""
    call = next((call for call in api.CALLS if call.__name__ == name), None)
    if name == "pretrain" and arguments and arguments[0].endswith(".py"):
        return None  # tools/pretrain.sh CONFIG GPUS
    if name == "predict" and any(word.split("=")[0] == "--config" for word in arguments):
        return None  # tools/predict.py PHOTOS --config CONFIG --checkpoint FILE
    if name == "compare" and not any(
        word.split("=")[0] in ("--starts", "-h", "--help") for word in arguments
    ):
        return None  # tools/compare.py [FOLDERS] [--run --configs --rows]
    return call


def show(result: Any) -> int:
    """End a call as a command does: a path is printed, a number of faults decides the exit code."""
    if isinstance(result, Path):
        print(result)
    return 1 if isinstance(result, int) and result else 0


def run_script(name: str, tool: Path, arguments: Sequence[str]) -> None:
    """Become bash with one of the scripts.

    Raises:
        UserError: There is no bash, or this is Windows, where a process cannot become another one.
    """
    if sys.platform == "win32" or shutil.which("bash") is None:
        from mst_pretrain.runtime.errors import UserError

        why = "Windows does not run it" if sys.platform == "win32" else "bash is not installed here"
        raise UserError(
            f"mst {name} is a bash script, and {why}. One process does the same without it: "
            "mst train CONFIG, or mst test CONFIG CHECKPOINT. On Windows, WSL runs everything (docs/platforms.md)."
        )
    os.environ.setdefault("PYTHON", sys.executable)
    os.execvp("bash", ["bash", str(tool), *arguments])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named call or tool with the remaining arguments; without one, list them.

    Raises:
        UserError: There is no such call or tool, or no tools at all.
    """
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-V", "--version"):
        print(f"mst-toolkit {__version__}")
        return 0
    if name in ("-h", "--help"):
        print(__doc__)
        calls = [(call.__name__, parse_docstring(call)[0]) for call in api.CALLS]
        named = [(tool, describe(path)) for tool, path in sorted(tools().items()) if tool not in dict(calls)]
        for title, entries in (("Commands (mst COMMAND --help)", calls), ("Tools", named)):
            print(f"\n{title}:", *(f"  {entry:20} {text}" for entry, text in entries), sep="\n")
        return 0
    if (call := friendly(name, arguments)) is not None:
        return show(call(**parse(call, arguments)))
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

        raise UserError(f"there is no command '{name}'. mst --help lists them.")
    if tool.suffix == ".sh":
        run_script(name, tool, arguments)
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
