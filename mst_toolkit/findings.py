"""What a look at machine, data and plan has found: lines of four kinds, printed as they come."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.extras import missing_extra
from mst_pretrain.runtime.terminal import shown_message

OK, NOTE, WARN, FAULT = "ok", "note", "warn", "FAULT"

Line = tuple[str, str]


class Diagnosis:
    """The lines found so far.

    Args:
        prints: Whether this process prints them; of several the first does.

    Attributes:
        lines: Section, kind (:data:`OK` and the others) and text of each.
        measured: Numbers for the report, by name.
    """

    def __init__(self, prints: bool = True) -> None:
        self.prints = prints
        self.lines: list[tuple[str, str, str]] = []
        self.measured: dict[str, Any] = {}
        self._section = ""

    def show(self, section: str, lines: Iterable[Line]) -> bool:
        """Take over lines as they come; an error that a user can mend becomes a fault.

        Returns:
            False where such an error ended them.
        """
        try:
            for kind, text in lines:
                self.add(section, kind, text)
        except UserError as error:
            self.add(section, FAULT, str(error))
            return False
        except ModuleNotFoundError as error:
            missing = missing_extra(error)
            if missing is None:
                raise
            self.add(section, FAULT, str(missing))
            return False
        return True

    def add(self, section: str, kind: str, text: str) -> None:
        """Print one line, and keep it."""
        text = " ".join(text.split())
        self.lines.append((section, kind, text))
        if self.prints:
            print(
                f"{'' if section == self._section else section:7} {kind:5} {shown_message(text)}", flush=True
            )
        self._section = section

    def count(self, kind: str) -> int:
        """Lines of a kind."""
        return sum(found == kind for _, found, _ in self.lines)

    @property
    def faults(self) -> int:
        """Lines that say that a run would fail."""
        return self.count(FAULT)

    def summary(self) -> str:
        """``1 fault, 2 warnings``."""
        faults, warnings = self.faults, self.count(WARN)
        return f"{faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}"

    def write(self, path: Path) -> None:
        """The report as JSON, with the versions and the device that it was made on."""
        from mst_pretrain.runtime.atomic import write_json
        from mst_pretrain.runtime.environment import environment_info

        lines = [dict(zip(("section", "kind", "text"), line, strict=True)) for line in self.lines]
        counts = {"faults": self.faults, "warnings": self.count(WARN)}
        write_json({**counts, "lines": lines, "measured": self.measured, **environment_info()}, path)
