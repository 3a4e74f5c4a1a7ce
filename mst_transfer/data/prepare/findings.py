"""What the preparation of a data set found: problems with their remedies, on the screen and in a summary file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError

SHOWN_PER_KIND = 5

KINDS = {  # what is said of a kind of problem, and how it is mended
    "missing split": (
        "parts of the data set are missing",
        "Unpack the archive named beside each, or correct the data root.",
    ),
    "wrong count": (
        "counts are not the official ones",
        "Unpack the archives again; if this is a set of your own, say so: --any-count.",
    ),
    "unusable file": (
        "files are truncated or cannot be decoded",
        "Copy or unpack them again, or remove them and their labels.",
    ),
    "absent image": (
        "images named by a JSON are not there",
        "Copy or unpack them again, or remove their entries from the JSON.",
    ),
    "image size": (
        "images are of another size than the JSON says",
        "Use the images that were annotated, or correct the JSON.",
    ),
    "entries": ("entries of a JSON cannot be used", "See each."),
    "no area": (
        "files have annotations of area 0 whose box is larger; training leaves them out",
        "Write each object's 'area' in pixels: its mask's, or its box's.",
    ),
    "box outside": (
        "boxes reach out of their image by more than a pixel",
        "Correct or remove these annotations.",
    ),
    "no label map": (
        "images have no label map",
        "Unpack the labels again, or remove these images.",
    ),
    "polygons": (
        "polygons cannot be drawn",
        "Unpack gtFine_trainvaltest.zip again.",
    ),
    "label map size": (
        "label maps are of another size than their image",
        "Resize the map with nearest neighbour, or replace it.",
    ),
    "unknown id": (
        "label maps have ids beyond the classes",
        "Write pixels of no class as 255; Cityscapes: delete the file and run this again, it is drawn anew.",
    ),
    "layout": ("parts cannot be used", "See each."),
}


@dataclass(frozen=True)
class Problem:
    """One fault: its kind (a key of ``KINDS``), the file or folder, and what is wrong with it."""

    kind: str
    path: Path
    what: str


@dataclass
class Findings:
    """Problems, notes on what is no problem, and the numbers of each split."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, path: Path, what: str) -> None:
        """Keep a problem."""
        self.problems.append(Problem(kind, path, what))

    def add_faults(self, faults: dict[Path, tuple[str, ...]]) -> None:
        """Keep the files that cannot be used."""
        for path, reasons in faults.items():
            for what in reasons:
                self.add("unusable file", path, what)

    def add_error(self, path: Path, error: UserError) -> None:
        """Keep the message of a check that stopped at its first fault."""
        self.add("layout", path, str(error))

    def expect(self, path: Path, found: int, expected: int | None, of: str) -> None:
        """Compare a count with the official one, if there is one."""
        if expected is not None and found != expected:
            self.add("wrong count", path, f"expected {expected:,} {of}, found {found:,}")

    def lines(self, summary: Path) -> list[str]:
        """What a person reads: at most five problems of a kind, the rest is in the summary."""
        lines = [f"{name}: {_numbers(numbers)}" for name, numbers in self.splits.items()]
        lines += [f"note: {note}" for note in self.notes]
        for kind, (title, remedy) in KINDS.items():
            mine = [problem for problem in self.problems if problem.kind == kind]
            if not mine:
                continue
            lines.append(f"error: {title} ({len(mine)}). {remedy}")
            lines += [f"  {problem.path}: {problem.what}" for problem in mine[:SHOWN_PER_KIND]]
            if len(mine) > SHOWN_PER_KIND:
                lines.append(f"  and {len(mine) - SHOWN_PER_KIND} more, all in {summary}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For the summary: everything, each problem with its remedy."""
        return {
            "splits": self.splits,
            "notes": self.notes,
            "problems": [
                {"kind": p.kind, "path": str(p.path), "what": p.what, "remedy": KINDS[p.kind][1]}
                for p in self.problems
            ],
        }


def _numbers(numbers: dict[str, Any]) -> str:
    return ", ".join(
        f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}"
        for name, value in numbers.items()
    )
