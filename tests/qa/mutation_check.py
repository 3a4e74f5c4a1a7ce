"""One-line mutations of the code, from three lists, each to be caught by a test.

    python tests/qa/mutation_check.py                       # all of them: hours
    python tests/qa/mutation_check.py --sample 60 --seed 0  # all of reading, resume and data checks, others by lot
    python tests/qa/mutation_check.py --only method_        # those of whose list, file, test or line this is a part
    python tests/qa/mutation_check.py --stale               # only look for the lines

The checkout is not touched: its packages, tests and configs are copied to a temporary folder for each of ``--jobs``
and mutated there, one at a time. A block without a test is caught by any test of its package. A line that is not found
exactly once is reported and counted neither as caught nor as survived. Exit code 1 when a mutation survives, or a test
fails on the unchanged code; with ``--stale`` when a line is not found.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mst_toolkit.resources import child_environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = (
    *("mst_toolkit", "mst_pretrain", "mst_transfer", "examples", "studies", "benchmarks"),
    *("tests", "configs", "tools", "docs", "pyproject.toml", "README.md"),
)

# In each block: FILE of the package and maybe the TEST of its tests; the line to replace; its replacement.
LISTS = {
    "method_mutations.txt": "mst_pretrain",
    "blind_mutations.txt": "mst_pretrain",  # this and the next: by authors who had not read the tests
    "transfer_mutations.txt": "mst_transfer",
}
# What a sample always has: reading of checkpoints, resume, checks of data.
ALWAYS = re.compile(
    r"checkpoints/|backbones/base|evaluation/trunk|training/(resume|loops?|runner|randomness|checks)\b|"
    r"data/(sampler|replacement|checking|files|layouts|coco_|pair_|problems|reading|folders|baselines|prepare/)"
)
STALE = "NOT FOUND ONCE"
LIMIT = 3600  # seconds of one run of tests; a mutation may keep a loop from ending


@dataclass(frozen=True)
class Mutation:
    """Replace ``old`` by ``new`` in a file of the package; ``test``, or any where it is empty, must then fail."""

    listed: str
    package: str
    file: str
    test: str
    old: str
    new: str


def parse(name: str, package: str, text: str) -> Iterator[Mutation]:
    """The mutations of one list."""
    for block in text.strip().split("\n\n"):
        place, old, new = block.splitlines()
        file, _, test = place.partition(" ")
        yield Mutation(name, package, file, test, old.removeprefix("- "), new.removeprefix("+ "))


def read_lists() -> list[Mutation]:
    """The mutations of all lists."""
    return [m for name, package in LISTS.items() for m in parse(name, package, (HERE / name).read_text())]


def draw(mutations: list[Mutation], count: int, seed: int) -> list[Mutation]:
    """A sample in the lists' order: all of reading, resume and data checks, others by lot up to ``count``."""
    always = [index for index, mutation in enumerate(mutations) if ALWAYS.match(mutation.file)]
    others = [index for index in range(len(mutations)) if index not in always]
    drawn = random.Random(seed).sample(others, min(max(count - len(always), 0), len(others)))
    return [mutations[index] for index in sorted(always + drawn)]


def is_stale(folder: Path, mutation: Mutation) -> bool:
    """Whether the code no longer has the line, or has it twice."""
    path = folder / mutation.package / mutation.file
    return not path.is_file() or path.read_text().count(mutation.old) != 1


def run_tests(folder: Path, package: str, *tests: str, jobs: int = 1) -> subprocess.CompletedProcess[str]:
    """pytest on tests of a package, in the copy."""
    env = child_environment(folder, PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    paths = [f"tests/{package}/{test}" for test in tests]
    command = [
        "timeout",  # which ends the tests' own processes too
        str(LIMIT),
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        f"-n{jobs if jobs > 1 else 0}",
        "--dist=loadfile",
        *paths,
    ]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def check(folder: Path, mutation: Mutation) -> tuple[str, str]:
    """``caught`` or what is wrong, and the test that failed."""
    if is_stale(folder, mutation):
        return STALE, mutation.test
    package, path = mutation.package, folder / mutation.package / mutation.file
    source = path.read_text()
    path.write_text(source.replace(mutation.old, mutation.new))
    try:
        for tests in [[mutation.test]] if mutation.test else stages(folder, package, mutation.file):
            ended = run_tests(folder, package, *tests)
            failed = re.search(rf"^(?:FAILED|ERROR) tests/{package}/(\S+)", ended.stdout, re.MULTILINE)
            if ended.returncode:
                break
    finally:
        path.write_text(source)
    result = {0: "SURVIVED", 1: "caught", 124: "caught"}.get(
        ended.returncode, f"PYTEST ENDED WITH {ended.returncode}"
    )
    no_end = f"no end after {LIMIT} s" if ended.returncode == 124 else mutation.test
    return result, failed[1] if failed else no_end


def stages(folder: Path, package: str, file: str) -> Iterator[list[str]]:
    """Tests of a module first, then those that name it or what it defines, then all; most mutations end early."""
    source, stem = (folder / package / file).read_text(), Path(file).stem
    names = [stem, *re.findall(r"^(?:class|def) ([A-Za-z]\w*)", source, re.MULTILINE)]
    named = re.compile(rf"\b(?:{'|'.join(names)})\b")
    place = folder / "tests" / package
    tests = {path: str(path.relative_to(place)) for path in sorted(place.rglob("test_*.py"))}
    own = [name for path, name in tests.items() if path.stem == f"test_{stem}"]
    others = [name for path, name in tests.items() if name not in own and named.search(path.read_text())]
    yield from filter(None, (own, others))
    yield [""]


def copy_checkout(folder: Path) -> None:
    """What the tests need, for mutations not to touch the checkout."""
    folder.mkdir()
    for item in COPIED:
        source = ROOT / item
        if source.is_dir():
            shutil.copytree(source, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / item)


def try_all(folders: Sequence[Path], mutations: list[Mutation]) -> list[str]:
    """Mutate and test, one after another in each copy; print the table, return the results."""
    free: Queue[Path] = Queue()
    for folder in folders:
        free.put(folder)

    def one(mutation: Mutation) -> tuple[str, str]:
        folder = free.get()
        try:
            result, test = check(folder, mutation)
        finally:
            free.put(folder)
        print(f"{result:8} {mutation.package}/{mutation.file}: {mutation.new}", file=sys.stderr, flush=True)
        return result, test

    table = Table()
    for title in ("file", "line", "becomes", "test", "result"):
        table.add_column(title, overflow="fold")
    with ThreadPoolExecutor(len(folders)) as pool:
        outcomes = list(pool.map(one, mutations))
    for mutation, (result, test) in zip(mutations, outcomes, strict=True):
        cells = (f"{mutation.package}/{mutation.file}", mutation.old, mutation.new, test, result)
        table.add_row(*map(escape, cells))
    Console(width=160).print(table)
    return [result for result, _ in outcomes]


def main() -> int:
    """Read the lists, copy, try the unchanged code, mutate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="mutations whose list, file, test or line contains this")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="this many, all of reading, resume and data checks first"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=1, help="mutations that are tried at a time")
    parser.add_argument("--stale", action="store_true", help="only say which lines are no longer there")
    args = parser.parse_args()
    mutations = [m for m in read_lists() if args.only in f"{m.listed} {m.package}/{m.file} {m.test} {m.old}"]
    if args.stale:
        stale = [m for m in mutations if is_stale(ROOT, m)]
        for m in stale:
            print(f"{m.listed}: {m.package}/{m.file}: {m.old}")
        print(f"{len(stale)} of {len(mutations)} lines are not found exactly once")
        return int(bool(stale))
    if args.sample is not None:
        mutations = draw(mutations, args.sample, args.seed)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(number)) for number in range(args.jobs)]
        for folder in folders:
            copy_checkout(folder)
        for package in sorted({m.package for m in mutations}):
            tests = sorted({m.test for m in mutations if m.package == package})
            unchanged = run_tests(folders[0], package, *tests, jobs=args.jobs)
            if unchanged.returncode:
                print(f"The tests fail on the unchanged code:\n{unchanged.stdout[-3000:]}", file=sys.stderr)
                return 1
        results = try_all(folders, mutations)
    caught, tried = results.count("caught"), len(results) - results.count(STALE)
    print(
        f"{caught} of {tried} mutations caught in {time.monotonic() - start:.0f} s; {len(results) - tried} lines were "
        "not found and are not counted"
    )
    return int(caught < tried)


if __name__ == "__main__":
    sys.exit(main())
