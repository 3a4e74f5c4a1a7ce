"""The table of the promises: of each kind and verdict, the outcomes of all examples and the longest time of one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the table of what the fixture `record` kept; it travels with the reports, from other processes too."""
    outcomes: dict[tuple[str, str], Counter[str]] = {}
    longest: dict[tuple[str, str], float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "promise" and report.when == "call":
                    kind, verdict, outcome, seconds = value
                    outcomes.setdefault((kind, verdict), Counter())[outcome] += 1
                    longest[kind, verdict] = max(longest.get((kind, verdict), 0), seconds)
    if outcomes:
        terminalreporter.section("promises")
        terminalreporter.write_line(f"{'kind':<14}{'verdict':<14}{'examples':>8}  {'longest':>8}  outcomes")
        for key, counts in outcomes.items():
            said = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
            line = f"{key[0]:<14}{key[1]:<14}{counts.total():>8}  {longest[key]:>6.2f} s  {said}"
            terminalreporter.write_line(line)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Any:
    """A function that keeps kind, verdict, outcome and seconds of one example for the table."""

    def keep(kind: str, verdict: str, outcome: str, seconds: float) -> None:
        request.node.user_properties.append(("promise", (kind, verdict, outcome, seconds)))

    return keep
