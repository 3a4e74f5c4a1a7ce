"""What becomes of files with flipped, missing and doubled bytes? Each is read as our commands read it, and counted.

    python tests/qa/mutated_files.py [--checkpoints N] [--shards N] [--coco N] [--seed S]

Mutation i of a kind is a function of (seed, kind, i). A file is refused by one message, or it is read; then its values
are compared with those of the whole file. Exit code 1 where reading ended in another error, took more than LIMIT
seconds, started a program, unpickled an object, or left a file behind. The program may take MEMORY bytes more than it
has at its start, so that a file that asks for more is noticed on a large machine too.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError

LIMIT = 10.0  # seconds for one file
MEMORY = 4 << 30
HEAD = 1024  # bytes at either end, where headers and tables stand and every second change is made
# Events of Python's audit that no reader of data has a reason for
FORBIDDEN = (
    *(
        "os.system",
        "os.exec",
        "os.spawn",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "pickle.find_class",
    ),
    *("shutil.unpack_archive", "urllib.Request", "socket.connect", "ctypes.dlopen"),
)


class Hang(BaseException):
    """A file took longer than LIMIT."""


@dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes:
        name: Of the table.
        whole: Path and bytes of each file that is mutated; a mutation takes one of them.
        read: Reads a path as our commands do, and returns what became of it in a few words.
    """

    name: str
    whole: list[tuple[Path, bytes]]
    read: Callable[[Path], str]


@dataclass
class Tally:
    """What became of the mutations of one subject.

    Attributes:
        outcomes: Number of files by change and outcome.
        defects: Mutations that ended as none should, in a line each.
        longest: Seconds of the slowest, and its number.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    longest: tuple[float, int] = (0.0, -1)


def mutated(whole: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The name of a change, and the bytes after it: some flipped, the end cut off, or a part (or all) there twice."""
    change = rng.choice(("flipped", "flipped", "cut", "doubled"))
    if change == "flipped":
        content = bytearray(whole)
        for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
            content[_place(len(whole), rng)] ^= 1 << rng.randrange(8)
        return change, bytes(content)
    if change == "cut":
        return change, whole[: _place(len(whole), rng)]
    if rng.random() < 0.2:
        return change, whole + whole
    start = _place(len(whole), rng)
    end = min(len(whole), start + rng.choice((1, 8, 512, 4096)))
    return change, whole[:end] + whole[start:end] + whole[end:]


def _place(size: int, rng: random.Random) -> int:
    at = rng.choice(("anywhere", "anywhere", "head", "tail"))
    near = rng.randrange(min(HEAD, size))
    return rng.randrange(size) if at == "anywhere" else near if at == "head" else size - 1 - near


class Watch:
    """Notes the forbidden events while a file is read. An audit hook stays for as long as its process."""

    def __init__(self) -> None:
        self.watching, self.seen = False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event in FORBIDDEN:
            self.seen.append(f"{event}{arguments!r:.200}")

    @contextmanager
    def file(self) -> Iterator[None]:
        """While one file is read, for LIMIT seconds at most."""
        self.seen.clear()
        before = signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        self.watching = True
        try:
            yield
        finally:
            self.watching = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _too_long(*_: Any) -> None:
    raise Hang


def listing(folder: Path) -> set[str]:
    """Every file and folder below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def try_one(subject: Subject, number: int, seed: int, watch: Watch, folder: Path, tally: Tally) -> None:
    """Make one mutation at its file's place, read it, put the whole file back, and count."""
    rng = random.Random(f"{seed} {subject.name} {number}")
    path, whole = rng.choice(subject.whole)
    change, content = mutated(whole, rng)
    path.write_bytes(content)
    before, started, problem = listing(folder), time.perf_counter(), ""
    try:
        with watch.file():
            outcome = "as the whole file" if content == whole else subject.read(path)
    except UserError as error:
        outcome = f"refused: {kind_of_refusal(str(error))}"
        if len(str(error).splitlines()) > 4 or not any(
            place in str(error) for place in (path.name, str(folder))
        ):
            problem = f"a message that is long or names no place: {str(error)[:300]}"
    except Hang:
        outcome = problem = f"took more than {LIMIT:.0f} s"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome = problem = (
            f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error!s:.200}"
        )
    seconds = time.perf_counter() - started
    path.write_bytes(whole)
    new = listing(folder) - before
    problem = problem or (f"left behind {sorted(new)[:3]}" if new else "")
    problem = f"ran {watch.seen[0]}" if watch.seen else problem
    if problem:
        tally.defects.append(f"{subject.name} {number} ({path.name}, {change}): {problem}")
    tally.outcomes[change, outcome if not problem else "DEFECT"] += 1
    tally.longest = max(tally.longest, (seconds, number))


REFUSALS = (
    ("truncated", ("truncated", "is empty", "end is missing", "end marker", "became shorter")),
    ("damaged", ("damaged", "checksum", "cannot be decoded", "not decodable", "cannot be used")),
    (
        "not such a file",
        ("is not a checkpoint", "pickle of Python", "cannot be read as JSON", "is not UTF-8"),
    ),
    ("more than weights", ("more than weights", "holds what is not read")),
    ("other content", ("",)),
)


def kind_of_refusal(message: str) -> str:
    """A few words for a message."""
    return next(kind for kind, marks in REFUSALS if any(mark in message for mark in marks))


def try_all(subject: Subject, count: int, seed: int, folder: Path, watch: Watch) -> Tally:
    """All mutations of one subject."""
    tally, started = Tally(), time.monotonic()
    for number in range(count):
        try_one(subject, number, seed, watch, folder, tally)
        if number % 100 == 99:
            left = (time.monotonic() - started) / (number + 1) * (count - number - 1)
            print(f"{subject.name}: {number + 1} of {count}, {left:.0f} s left", file=sys.stderr, flush=True)
    return tally


def table(name: str, tally: Tally) -> str:
    """The rows of one subject."""
    lines = [
        f"| {name} | {change} | {outcome} | {n} |" for (change, outcome), n in sorted(tally.outcomes.items())
    ]
    total, (seconds, number) = sum(tally.outcomes.values()), tally.longest
    lines.append(
        f"| {name} | all | {len(tally.defects)} defects; longest {seconds:.2f} s (number {number}) | {total} |"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Try all, print the table; 1 where one ended as none should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in (("checkpoints", 1000), ("shards", 1000), ("coco", 300)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help="mutations")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    from mutated_subjects import checkpoints, coco, shards

    defects, watch = 0, Watch()
    print("| file | change | outcome | number |\n|---|---|---|---|")
    for subject_of, count in ((checkpoints, args.checkpoints), (shards, args.shards), (coco, args.coco)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            os.environ["MST_CACHE"] = tempfile.tempdir = str(folder / "cache")
            (folder / "cache").mkdir()
            subject = subject_of(folder)
            faulthandler.dump_traceback_later(600 + LIMIT * count, exit=True)
            with limited_memory():
                tally = try_all(subject, count, args.seed, folder, watch)
            tempfile.tempdir = None
        print(table(subject.name, tally), flush=True)
        print("".join(f"{line}\n" for line in tally.defects), end="", file=sys.stderr, flush=True)
        defects += len(tally.defects)
    return int(defects > 0)


@contextmanager
def limited_memory() -> Iterator[None]:
    """No more than MEMORY bytes of addresses beyond those that this process has."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
