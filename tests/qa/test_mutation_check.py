"""What the command draws from the lists of mutations, and what it makes of a line that is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qa.mutation_check import ALWAYS, STALE, Mutation, check, draw, parse, read_lists


def test_a_sample_has_every_mutation_of_reading_resume_and_data_checks() -> None:
    """A sample would leave out what it is drawn to prove, or be another one for the next person."""
    mutations = read_lists()
    always = [m for m in mutations if ALWAYS.match(m.file)]
    count = len(always) + 10
    sample = draw(mutations, count, seed=0)
    assert len(sample) == count and 30 <= len(always)
    assert [m for m in sample if ALWAYS.match(m.file)] == always
    assert draw(mutations, count, seed=0) == sample != draw(mutations, count, seed=1)


def test_a_line_that_is_gone_is_neither_caught_nor_survived(tmp_path: Path) -> None:
    """A mutation that changes nothing would be counted, or one that lies twice in a file be made twice."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package/a.py").write_text("x = 1\nx = 1\n")
    for file, old in (("a.py", "y = 1"), ("a.py", "x = 1"), ("b.py", "x = 1")):
        (mutation,) = parse("some.txt", "package", f"{file} test_a.py::test\n- {old}\n+ x = 2\n")
        assert mutation == Mutation("some.txt", "package", file, "test_a.py::test", old, "x = 2")
        assert check(tmp_path, mutation) == (STALE, "test_a.py::test")


def test_a_mutated_line_is_put_back(tmp_path: Path) -> None:
    """The next mutation would be tried on code that is wrong already."""
    for folder in ("package", "tests/package"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "package/a.py").write_text("x = 1\n")
    (tmp_path / "tests/package/test_a.py").write_text(
        "from package.a import x\n\ndef test_x():\n    assert x < 3\n"
    )
    results = [
        check(tmp_path, Mutation("some.txt", "package", "a.py", "test_a.py::test_x", "x = 1", f"x = {value}"))
        for value in (2, 3)
    ]
    assert [result for result, _ in results] == ["SURVIVED", "caught"]
    assert (tmp_path / "package/a.py").read_text() == "x = 1\n"


def test_tests_without_end_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would wait for ever on a mutation that keeps a loop from ending."""
    for folder in ("package", "tests/package"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "package/a.py").write_text("x = 1\n")
    (tmp_path / "tests/package/test_a.py").write_text(
        "from package.a import x\n\ndef test_x():\n    while x == 2:\n        pass\n"
    )
    monkeypatch.setattr("tests.qa.mutation_check.LIMIT", 8)
    mutation = Mutation("some.txt", "package", "a.py", "test_a.py::test_x", "x = 1", "x = 2")
    assert check(tmp_path, mutation) == ("caught", "no end after 8 s")
