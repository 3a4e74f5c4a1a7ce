"""The lists of mutations: each must name a line that the code still has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qa.mutation_check import TABLE, parse

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("package", "listed"),
    [
        ("mst_pretrain", TABLE),
        ("mst_pretrain", (ROOT / "tests/qa/blind_mutations.txt").read_text()),
        ("mst_transfer", (ROOT / "tests/qa/transfer_mutations.txt").read_text()),
    ],
    ids=["table", "blind", "transfer"],
)
def test_every_mutation_finds_its_line(package: str, listed: str) -> None:
    """A mutation would change nothing, so that nobody would know whether a test catches it."""
    mutations = parse(listed)
    assert len(mutations) >= 50
    stale = [
        f"{m.file}: {m.old}"
        for m in mutations
        if (ROOT / package / m.file).read_text().count(m.old) != 1 or m.new == m.old
    ]
    assert stale == []


def test_named_tests_exist() -> None:
    """A mutation of the table would be tried against a test that was renamed."""
    for mutation in parse(TABLE):
        file, _, name = mutation.test.partition("::")
        assert f"def {name}(" in (ROOT / "tests/mst_pretrain" / file).read_text(), mutation.test
