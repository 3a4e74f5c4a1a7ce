"""The reference of the command line, made from the signatures and docstrings of ``mst_toolkit.api``.

python docs/programs/command_line.py            # writes docs/reference/command_line.md
python docs/programs/command_line.py --check    # exit code 1 where that page is of other signatures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference/command_line.md"
HEAD = """<!-- made by docs/programs/command_line.py: change the docstrings of mst_toolkit/api.py instead -->

# Command line

Every command is the Python function of the same name: a parameter without a default is a positional argument, every
other one an option. `mst COMMAND --help` prints the same. Every tool of `tools/` is a command too: `mst --help` lists
them, and `mst train CONFIG` is `python tools/train.py CONFIG`.

| command | what it does |
|---|---|
"""


def described(call: Callable[..., Any]) -> str:
    """The section of one command.

    Args:
        call: A function of :mod:`mst_toolkit.api`.
    """
    from mst_toolkit.arguments import parse_docstring, parser_of

    what, _ = parse_docstring(call)
    parser = parser_of(call)
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.dest.upper()}`"
        if action.choices:
            value = " ".join(f"`{choice}`" for choice in action.choices)
        elif action.option_strings and action.nargs != 0:
            value = f"`{action.metavar}`"
        else:
            value = ""
        if action.nargs == "+":
            value = f"{value} ..." if value else "one or more"
        elif not action.option_strings and action.nargs == "?":
            value = f"{value} (may be left out)".strip()
        if action.option_strings and action.required:
            value += ", required"
        meaning = (action.help or "").replace("%%", "%").replace("|", "\\|")
        rows.append(f"| {names} | {value} | {meaning} |")
    table = "\n".join(["| argument | value | meaning |", "|---|---|---|", *rows])
    return f"## mst {call.__name__}\n\n{what}\n\n{table}\n"


def page() -> str:
    """The whole page."""
    from mst_toolkit.api import CALLS
    from mst_toolkit.arguments import parse_docstring

    listed = [
        f"| [`mst {call.__name__}`](#mst-{call.__name__}) | {parse_docstring(call)[0]} |" for call in CALLS
    ]
    return HEAD + "\n".join(listed) + "\n\n" + "\n".join(described(call) for call in CALLS)


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/reference/command_line.md is of other signatures. Type: python docs/programs/command_line.py")
    return 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
