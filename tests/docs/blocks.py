"""The blocks of the documentation that claim to run, and running them on small data.

A block behind the line ``<!-- tested -->`` is run. In a console block a line that begins with ``$`` is a command, and
the lines behind it are compared with the first lines that it prints; ``...`` inside a line stands for any text, and a
line of its own ends the comparison. Commands are those of the page, made short by :data:`SMALL`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mst_toolkit import api, cli

DOCS = Path(__file__).parents[2] / "docs"
MARKED = re.compile(
    r"^<!-- tested(?:, needs (?P<needs>[\w ]+))? -->\n+```(?P<kind>console|python)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
ANY = "..."
FINETUNE = "--image-size 64 --steps 1 --batch-size 2 --workers 0"
SMALL = {  # what makes a command of the documentation short
    "pretrain": "--arch vit_tiny --image-size 32 --steps 1 --batch-size 4 --workers 0 "
    "--cfg-options model.head.prototypes=32",
    "finetune": FINETUNE,
    "compare": f"{FINETUNE} --seeds 1",
    "doctor": "--quick",
}
MAKERS = {  # which command makes a run that a page takes as given
    "runs/photos": "mst pretrain photos --out runs/photos",
    "runs/parts": "mst finetune detection parts_coco --init runs/photos --out runs/parts",
    "runs/cracks": "mst finetune segmentation cracks --init runs/photos --out runs/cracks",
}


@dataclass(frozen=True)
class Block:
    """A marked block.

    Attributes:
        page: File.
        line: Of its first line, from 1.
        kind: ``console`` or ``python``.
        text: What stands in it.
        needs: Packages without which it is left out, as ``<!-- tested, needs onnx -->`` names them.
    """

    page: Path
    line: int
    kind: str
    text: str
    needs: tuple[str, ...] = ()

    @property
    def can_run(self) -> bool:
        """Whether the packages are there."""
        return all(find_spec(name) for name in self.needs)


def blocks_of(page: Path) -> list[Block]:
    """The marked blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("text")) + 1,
            found["kind"],
            found["text"],
            tuple((found["needs"] or "").split()),
        )
        for found in MARKED.finditer(text)
    ]


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that stand behind it."""
    found: list[tuple[str, list[str]]] = []
    open_command = False
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
            open_command = True
        elif open_command and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0][:-1].rstrip()} {line.strip()}", [])
        else:
            found[-1][1].append(line)
    return found


def differs(expected: Sequence[str], printed: str) -> str | None:
    """What of the expected first lines is not so; None where they agree."""
    lines = printed.splitlines()
    for number, line in enumerate(expected):
        if line.strip() == ANY:
            return None
        pattern = ".*".join(re.escape(part) for part in line.rstrip().split(ANY))
        there = lines[number].rstrip() if number < len(lines) else "(no such line)"
        if not re.fullmatch(pattern, there):
            return f"line {number + 1}: the page says {line!r}, printed was {there!r}"
    return None


@dataclass
class World:
    """A folder with small data, in which the commands of all pages run.

    Attributes:
        root: The folder; it must be the working directory.
        printed: What each command printed, so that a command of two pages runs once.
    """

    root: Path
    printed: dict[str, str] = field(default_factory=dict)

    def provide(self, text: str) -> None:
        """Make the runs that a block takes as given."""
        for name, command in MAKERS.items():
            wanted = re.search(rf"(?<!--out ){name}\b", text) and f'out="{name}"' not in text
            if wanted and f"--out {name}" not in text and not (self.root / name).exists():
                self.provide(command.split("--out")[0])
                self.run(command)

    def run(self, command: str) -> str:
        """Run a command of ``mst`` in this process.

        Returns:
            What it printed.
        """
        if command in self.printed:
            return self.printed[command]
        words = shlex.split(command)
        assert words[0] == "mst", f"only commands of mst are run, not: {command}"
        _, name, *arguments = words
        if name == "predict":  # wants a new folder; another page's command had the same
            shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            code = cli.main([name, *arguments, *shlex.split(SMALL.get(name, ""))])
        assert code == 0, f"{command}\n{output.getvalue()}"
        self.printed[command] = output.getvalue()
        return self.printed[command]

    def call(self, name: str) -> Callable[..., Any]:
        """The call of that name in Python, as the command with the same arguments: one training serves both."""
        function = next(call for call in api.CALLS if call.__name__ == name)

        def as_command(*arguments: Any, **settings: Any) -> Path:
            bound = inspect.signature(function).bind(*arguments, **settings).arguments
            kinds = inspect.signature(function).parameters
            words = ["mst", name]
            for key, value in bound.items():
                plain = kinds[key].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
                values = [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]
                words += values if plain else [f"--{key.replace('_', '-')}", *values]
            self.run(shlex.join(words))
            return Path(bound["out"])

        return as_command
