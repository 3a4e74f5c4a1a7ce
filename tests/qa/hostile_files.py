"""What does tools/convert_checkpoint.py say of broken and hostile files? Each is made, tried, and stands in one table.

    python tests/qa/hostile_files.py [--only TEXT ...]

The tool's ``main`` runs in this process as its last two lines run it; cases marked ``process`` run as a user does. A
refusal is one message, exit code 2 and nothing new in any folder; a conversion gives a file whose features in timm are
those of the source. Exit code 1 when anything differs from what is expected: another message or code, a traceback, code
that ran, a file left behind, other features.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import timm
import torch

from mst_pretrain.runtime.errors import run_cli
from mst_toolkit.resources import child_environment

sys.path.insert(0, str(Path(__file__).parent))
from hostile_cases import CASES
from hostile_workshop import MODEL, Case, Workshop

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools/convert_checkpoint.py"
SHOWN = (110, 110)  # characters of a message, from its start and from its end


def tool() -> ModuleType:
    """tools/convert_checkpoint.py as a module."""
    spec = importlib.util.spec_from_file_location("convert_checkpoint", TOOL)
    assert spec is not None and spec.loader is not None, TOOL
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_here(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and what went to stderr, as a process of the tool would give them."""
    stderr, code = io.StringIO(), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
        try:
            run_cli(lambda: tool().main(list(arguments)))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # what Python does with it at the top of a process
            traceback.print_exc()
            code = 1
    return code, stderr.getvalue()


def run_process(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and stderr of the tool as a process of its own."""
    command = [sys.executable, str(TOOL), *arguments]
    done = subprocess.run(command, env=child_environment(ROOT), capture_output=True, text=True)
    return done.returncode, done.stderr


@contextlib.contextmanager
def room(size: int | None) -> Iterator[None]:
    """No file can grow beyond so many bytes: the writer meets an OSError, as on a full disk."""
    if size is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def listing(folder: Path) -> dict[str, int]:
    """Every file and folder below, with its size."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


def short(text: str, folder: Path) -> str:
    """The message in one line, without the temporary folder."""
    lines = [line for line in text.splitlines() if line.strip()]
    if "Traceback (most recent call last)" in text:
        message = f"TRACEBACK: {lines[-1]}"
    else:
        message = re.sub(r"^.*?error: ", "", " ".join(lines))
    message = " ".join(message.replace(f"{folder}/", "").split())
    start, end = SHOWN
    return message if len(message) <= start + end else f"{message[:start]} [...] {message[-end:]}"


@torch.no_grad()
def same_features(shop: Workshop, written: Path) -> float:
    """Largest difference of timm's features from the source's."""
    model = timm.create_model(MODEL, num_classes=0, checkpoint_path=str(written)).eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    return float((model(images) - shop.source(images)).abs().max())


def check(case: Case, folder: Path, state: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Make one file and convert it; a row of the table, and what was not as expected."""
    shop = Workshop(folder, dict(state))
    arguments = [str(word) for word in case.make(shop)]
    if not case.names_destination:
        arguments.insert(1, str(shop.destination))
    before = listing(folder)
    with room(case.room):
        code, stderr = (run_process if case.process else run_here)(arguments)
    new = {name for name, size in listing(folder).items() if before.get(name) != size}
    problems = ["code of the file ran"] if shop.marker.exists() else []
    if "Traceback (most recent call last)" in stderr:
        problems.append("a traceback")
    features = ""
    if case.expected is None:
        new.discard(shop.destination.name)
        if code:
            problems.append("should have been converted")
        else:
            difference = same_features(shop, shop.destination)
            features = "equal" if difference == 0 else f"differ by {difference:.1e}"
            problems += ["other features"] if difference else []
    else:
        if code != 2:
            problems.append(f"exit code {code} instead of 2")
        if not re.search(case.expected, stderr, re.DOTALL):
            problems.append(f"message without '{case.expected}'")
    if new:
        problems.append(f"left behind: {', '.join(sorted(new))}")
    message = short(stderr, folder) if code else "converted"
    how = f"{case.name} (process)" if case.process else case.name
    return [how, str(code), message, features, "; ".join(problems) or "as expected"], problems


def main(argv: list[str] | None = None) -> int:
    """Try every case, print the table; 1 when something was not as expected."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="cases with such a text")
    args = parser.parse_args(argv)
    start, bad, rows = time.monotonic(), 0, []
    state = Workshop.weights()
    chosen = [case for case in CASES if any(word in case.name for word in args.only)]
    for number, case in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory() as folder:
            row, problems = check(case, Path(folder).resolve(), state)
        rows.append(row)
        bad += bool(problems)
        left = (time.monotonic() - start) / number * (len(chosen) - number)
        print(f"{number}/{len(chosen)} {case.name}: {row[-1]}; ETA {left:.0f} s", file=sys.stderr, flush=True)
    print("| file | exit code | message | features | verdict |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |")
    seconds = time.monotonic() - start
    print(f"\n{len(rows)} files, {bad} not as expected; {seconds:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    run_cli(main)
