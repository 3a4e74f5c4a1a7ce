"""What a check gets to work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .findings import Findings
from .verify import Verifier


@dataclass
class Task:
    """One run.

    Args:
        root: The data set.
        out: Folder of what is written: the summary, the record and new label maps; ``root`` unless given.
        any_count: The set is not the official one: any number of images and classes, no test split needed.
        classes: Number of classes of a pair of folders.
        boxes_only: COCO's annotations need no masks.
        verifier: Reads the files.
        findings: Filled by the checks.
    """

    root: Path
    out: Path
    any_count: bool
    classes: int
    boxes_only: bool
    verifier: Verifier
    findings: Findings = field(default_factory=Findings)

    def expected(self, counts: dict[str, int], split: str) -> int | None:
        """The official count, unless the set is another."""
        return None if self.any_count else counts[split]
