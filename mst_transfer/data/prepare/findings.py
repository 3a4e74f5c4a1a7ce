"""What the preparation of a data set works with and finds: problems with their remedies, for screen and summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError

from ..missing import there_instead
from ..problems import KINDS, WARNINGS, Problem
from ..reading import Reader

SHOWN_PER_KIND = 5


@dataclass
class Findings:
    """Problems, what may be one, notes on what is not, and the numbers of each split."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, path: Path, what: str) -> None:
        """Keep a problem."""
        self.problems.append(Problem(kind, path, what))

    def take(self, path: Path, problems: Iterable[Problem]) -> list[Problem]:
        """Keep all, and return the problems; an error that ends their iteration is the last of them, of ``path``."""
        before = len(self.problems)
        with self.keeping(path):
            for problem in problems:
                (self.warnings if problem.kind in WARNINGS else self.problems).append(problem)
        return self.problems[before:]

    @contextmanager
    def keeping(self, path: Path) -> Iterator[None]:
        """An error that ends the block becomes a problem of ``path``."""
        try:
            yield
        except UserError as error:
            self.add("layout", path, str(error).removeprefix(str(path)).lstrip(": "))

    def expect(self, path: Path, found: int, expected: int | None, of: str) -> None:
        """Compare a count with the official one, if there is one."""
        if expected is not None and found != expected:
            self.add("wrong count", path, f"expected {expected:,} {of}, found {found:,}")

    def lines(self, summary: Path) -> list[str]:
        """What a person reads: at most five problems of a kind, the rest is in the summary."""
        lines = [f"{name}: {_numbers(numbers)}" for name, numbers in self.splits.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"warning: {warning}" for warning in self.warnings]
        for kind, (title, _) in KINDS.items():
            mine = [problem for problem in self.problems if problem.kind == kind]
            if not mine:
                continue
            shared = mine[0].remedy if len({problem.remedy for problem in mine}) == 1 else "See each."
            lines.append(f"error: {title} ({len(mine)}). {shared}".rstrip())
            for problem in mine[:SHOWN_PER_KIND]:
                own = f". {problem.remedy}" if problem.remedy != shared else ""
                lines.append(f"  {problem.path}: {problem.what}{own}")
            if len(mine) > SHOWN_PER_KIND:
                lines.append(f"  and {len(mine) - SHOWN_PER_KIND} more, all in {summary}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For the summary: everything, each problem with its remedy."""
        return {
            "splits": self.splits,
            "notes": self.notes,
            **{
                key: [{"kind": p.kind, "path": str(p.path), "what": p.what, "remedy": p.remedy} for p in some]
                for key, some in (("warnings", self.warnings), ("problems", self.problems))
            },
        }


@dataclass
class Task:
    """One run.

    Args:
        root: The data set.
        out: Folder of what is written: the summary, the record and new label maps; ``root`` unless given.
        any_count: The set is not the official one: any number of images and classes, no test split needed.
        classes: Number of classes of a pair of folders.
        boxes_only: COCO's annotations need no masks.
        reader: Reads the files.
        findings: Filled by the checks.
        images: Of each split, train first; filled by the checks.
    """

    root: Path
    out: Path
    any_count: bool
    classes: int
    boxes_only: bool
    reader: Reader
    findings: Findings = field(default_factory=Findings)
    images: list[Sequence[Path]] = field(default_factory=list)

    def missing(self, part: Path, archive: str = "") -> None:
        """Keep that a part is missing, with what lies there instead, and the archive of an official set."""
        official = archive and not self.any_count
        what = f"does not exist{there_instead(part)}" + (f"; unpack {archive}" if official else "")
        remedy = (
            ""
            if official
            else "Rename what is there, or link to it under this name (ln -s), or correct the data root."
        )
        self.findings.problems.append(Problem("missing split", part, what, remedy))

    def expected(self, counts: dict[str, int], split: str) -> int | None:
        """The official count, unless the set is another."""
        return None if self.any_count else counts[split]


def _numbers(numbers: dict[str, Any]) -> str:
    return ", ".join(
        f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}"
        for name, value in numbers.items()
    )
