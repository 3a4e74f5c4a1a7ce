"""Is a checkpoint ever torn? ``kill -9`` while the project's own writers replace a file, at random moments.

    python tests/qa/kill_while_writing.py [--writer save_atomic] [--kills 160] [--tool-kills 5] [--dir DISK]

A forked child that holds the tensors replaces content A by content B, or B by A; the parent waits until something else
appears in the folder, sleeps a random part of the measured writing time and kills, so never too early.
A kill has *landed* when the child was alive, its temporary file is there after the kill, and the destination was not
replaced; else it came too late. After every kill the destination must be, byte for byte, the whole old or the whole new
content. --tool-kills does the same to whole tools/convert_checkpoint.py processes. At the end each writer runs
undisturbed twice: among what the last killed one left, which must stay, for its writer might live on another machine;
and again when that is made to look a day old, and must be gone then. One JSON line; exit code 1 when a file was torn,
fewer kills landed than wanted, or one of these last writings was not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from mst_pretrain.checkpoints.storage import save_atomic, save_safetensors
from mst_pretrain.runtime.atomic import STALE
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_toolkit.resources import child_environment

ROOT = Path(__file__).resolve().parents[2]
Writer = Callable[[Mapping[str, Tensor], Path], None]
WRITERS: dict[str, tuple[Writer, str]] = {
    "save_safetensors": (save_safetensors, ".safetensors"),
    "save_atomic": (save_atomic, ".pth"),
}
TOOL = "convert_checkpoint.py"
# 343 MB in float32. Written as .pth: the order of a .safetensors file's metadata differs from run to run.
TOOL_MODEL, TOOL_SUFFIX = "vit_base_patch16_224", ".pth"
POLL = 0.0002  # seconds
ATTEMPTS = 10  # per wanted kill, then the disk is called too fast for this
BLOCK = 1 << 24


@dataclass
class Count:
    """What the kills of one writer found.

    Attributes:
        megabytes: Of the file, 10^6 bytes.
        seconds: Of an undisturbed writing, from the first sight of its temporary file to the new destination.
        kills: ``kill -9`` sent.
        landed: Of these, while the temporary file was there and the destination not yet replaced.
        too_late: The child had replaced the destination, or had ended.
        thirds: Landed kills by third of the writing time.
        old: Destinations found to be the whole old content.
        new: The whole new content.
        torn: Anything else.
        left_behind: Temporary files that the killed left, by the form of their name.
        recovered: Whether undisturbed writings among the left-over files gave the whole new content, and removed old
            leftovers only.
    """

    megabytes: int = 0
    seconds: float = 0.0
    kills: int = 0
    landed: int = 0
    too_late: int = 0
    thirds: list[int] = field(default_factory=lambda: [0, 0, 0])
    old: int = 0
    new: int = 0
    torn: int = 0
    left_behind: Counter[str] = field(default_factory=Counter)
    recovered: bool = False


class Victim:
    """Something that replaces one file, in a folder of its own, by content A or B.

    Args:
        folder: New; holds the destination and, while something writes, its temporary files.
        name: Of the destination.
        actions: Called in a child process: writes A, writes B.
    """

    def __init__(self, folder: Path, name: str, actions: tuple[Callable[[], Any], Callable[[], Any]]) -> None:
        folder.mkdir()
        self.destination, self.actions = folder / name, actions
        self.contents = (folder.with_name(f"{folder.name}.A"), folder.with_name(f"{folder.name}.B"))

    def start(self, which: int) -> int:
        """A child process that writes; its id."""
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            return child
        try:
            self.actions[which]()
            os._exit(0)
        except BaseException as error:  # nothing of this process may go on in the child
            os.write(2, f"error: the writer failed: {error!r}\n".encode())
            os._exit(1)

    def write(self, which: int) -> float:
        """Undisturbed; seconds from the first sign to the new destination.

        Raises:
            UserError: The writer failed.
        """
        before, child = self.state(), self.start(which)
        status = self.wait(child, lambda: bool(self.temporaries()) or self.state() != before)
        start = time.perf_counter()
        if status is None:
            status = self.wait(child, lambda: self.state() != before)
        seconds = time.perf_counter() - start
        if status is None:
            status = os.waitpid(child, 0)[1]
        if status:
            raise UserError(f"the writer of {self.destination.name} failed; its message is above.")
        return seconds

    def prepare(self) -> float:
        """Write both contents and keep them; the destination is A then. Seconds of a writing, median of three."""
        seconds = []
        for which in (0, 1, 0):
            seconds.append(self.write(which))
            if not self.contents[which].exists():
                shutil.copyfile(self.destination, self.contents[which])
            elif not self.holds(which):
                raise UserError(
                    f"two writings of {self.destination.name} differ, so nothing can be compared."
                )
        if self.holds(1):
            raise UserError(
                f"contents A and B of {self.destination.name} are equal: nothing can be told apart."
            )
        return statistics.median(seconds)

    def state(self) -> tuple[int, int, int] | None:
        """Changes when the destination is replaced or written to."""
        try:
            found = self.destination.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def temporaries(self) -> list[str]:
        """Names of all that is beside the destination."""
        return [name for name in os.listdir(self.destination.parent) if name != self.destination.name]

    def wait(self, child: int, sign: Callable[[], bool]) -> int | None:
        """Until there is a sign of the child; its status if it ended without, else None."""
        while not sign():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(POLL)
        return None

    def holds(self, which: int) -> bool:
        """Whether the destination is that whole content, byte for byte."""
        if not self.destination.is_file():
            return False
        if self.destination.stat().st_size != self.contents[which].stat().st_size:
            return False
        with open(self.destination, "rb") as one, open(self.contents[which], "rb") as other:
            while block := one.read(BLOCK):
                if block != other.read(BLOCK):
                    return False
        return True

    def clear(self) -> None:
        """Remove what a killed writer left."""
        for name in self.temporaries():
            (self.destination.parent / name).unlink()


def attempt(victim: Victim, count: Count, old: int, share: float) -> int:
    """One writing, killed after ``share`` of its time; which content the destination has then.

    Raises:
        UserError: The writer failed by itself.
    """
    victim.clear()
    before, child = victim.state(), victim.start(1 - old)
    status = victim.wait(child, lambda: bool(victim.temporaries()) or victim.state() != before)
    if status is None:
        time.sleep(share * count.seconds)
        os.kill(child, signal.SIGKILL)
        count.kills += 1
        status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise UserError(f"the writer of {victim.destination.name} failed; its message is above.")
    left, untouched = victim.temporaries(), victim.state() == before
    if os.WIFSIGNALED(status) and left and untouched:
        count.landed += 1
        count.thirds[min(2, int(3 * share))] += 1
    else:
        count.too_late += 1
    count.left_behind.update(
        re.sub(r"\.[^.]+-\d+-[0-9a-f]{8}\.part$", ".HOST-PROCESS-WORD.part", name) for name in left
    )
    for which in (old, 1 - old) if untouched else (1 - old, old):
        if victim.holds(which):
            count.old += which == old
            count.new += which != old
            return which
    count.torn += 1
    victim.write(old)  # whole again, so that the next kill tells something
    return old


def kill_often(title: str, victim: Victim, wanted: int, rng: random.Random) -> Count:
    """Kill until so many have landed; then one writing goes through."""
    count = Count(seconds=victim.prepare())
    count.megabytes = round(victim.destination.stat().st_size / 1e6)
    held, start, tries = 0, time.monotonic(), 0
    while count.landed < wanted and tries < ATTEMPTS * wanted:
        held = attempt(victim, count, held, rng.random())
        tries += 1
        rest = (time.monotonic() - start) / max(count.landed, 1) * (wanted - count.landed)
        if sys.stderr.isatty() or count.landed == wanted or tries % 10 == 0 or wanted < 20:
            print(
                f"{title}: {count.landed}/{wanted} landed, {count.torn} torn, {count.too_late} too late, "
                f"ETA {rest:.0f} s",
                end="\r" if sys.stderr.isatty() and count.landed < wanted else "\n",
                file=sys.stderr,
                flush=True,
            )
    left = sorted(victim.temporaries())
    count.recovered = rewritten(victim, 1 - held) and sorted(victim.temporaries()) == left
    for name in victim.temporaries():
        os.utime(victim.destination.parent / name, (0, time.time() - STALE - 60))
    count.recovered &= rewritten(victim, held) and not victim.temporaries()
    return count


def rewritten(victim: Victim, which: int) -> bool:
    """Whether an undisturbed writing gives that whole content."""
    return os.waitpid(victim.start(which), 0)[1] == 0 and victim.holds(which)


def contents(megabytes: int, seed: int) -> dict[str, Tensor]:
    """Eight tensors of together at least so many 10^6 bytes."""
    generator = torch.Generator().manual_seed(seed)
    return {f"weight{i}": torch.randn(megabytes * 31_250, generator=generator) for i in range(8)}


def writer_victim(folder: Path, write: Writer, suffix: str, megabytes: int) -> Victim:
    """A writer with both contents in memory."""
    a, b = contents(megabytes, 0), contents(megabytes, 1)
    path = folder / f"checkpoint{suffix}"
    return Victim(folder, path.name, (lambda: write(a, path), lambda: write(b, path)))


def tool_victim(folder: Path) -> Victim:
    """tools/convert_checkpoint.py, which converts one of two files."""
    path, commands = folder / f"converted{TOOL_SUFFIX}", []
    for name in ("A", "B"):
        source = folder.with_name(f"source_{name}.safetensors")
        torch.manual_seed(ord(name))
        save_safetensors(timm.create_model(TOOL_MODEL, num_classes=0).state_dict(), source)
        commands.append([sys.executable, str(ROOT / "tools" / TOOL), str(source), str(path)])

    def run(command: list[str]) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execve(command[0], command, child_environment(ROOT))

    return Victim(folder, path.name, (lambda: run(commands[0]), lambda: run(commands[1])))


def main(argv: list[str] | None = None) -> int:
    """Kill each writer, then the tool; 1 when a file was torn or too few kills landed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--writer", choices=list(WRITERS), help="default: both in turn")
    parser.add_argument(
        "--kills", type=int, default=160, help="that must land, over all writers (default: 160)"
    )
    parser.add_argument(
        "--tool-kills", type=int, default=5, help="that must land in the tool, on top (default: 5)"
    )
    parser.add_argument(
        "--megabytes", type=int, default=300, help="of the writers' file (default: 300); the tool's: 343"
    )
    parser.add_argument("--dir", type=Path, help="folder on the disk to try; default: the temporary one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # a forked child has no other threads
    writers = [args.writer] if args.writer else list(WRITERS)
    wanted = {name: -(-args.kills // len(writers)) for name in writers}
    rng, start, counts = random.Random(args.seed), time.monotonic(), {}
    for title in [*writers, *([TOOL] if args.tool_kills else [])]:
        with tempfile.TemporaryDirectory(dir=args.dir, prefix="kill_while_writing_") as folder:
            work = Path(folder) / "victim"
            tool = title == TOOL
            victim = tool_victim(work) if tool else writer_victim(work, *WRITERS[title], args.megabytes)
            counts[title] = kill_often(title, victim, wanted.setdefault(title, args.tool_kills), rng)
    total = {
        key: sum(getattr(c, key) for c in counts.values())
        for key in ("kills", "landed", "too_late", "old", "new", "torn")
    }
    good = not total["torn"] and all(c.landed >= wanted[name] and c.recovered for name, c in counts.items())
    details = {name: {**vars(c), "seconds": round(c.seconds, 3)} for name, c in counts.items()}
    print(json.dumps({**total, "passed": good, "wall": round(time.monotonic() - start), "by": details}))
    return 0 if good else 1


if __name__ == "__main__":
    run_cli(main)
