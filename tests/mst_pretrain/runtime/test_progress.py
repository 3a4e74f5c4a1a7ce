"""What long preparations say, and when."""

from __future__ import annotations

import pytest

from mst_pretrain.runtime import progress
from mst_pretrain.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_says_how_long_the_rest_takes(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody would wait before a silent terminal, read a line a second, or a wrong time."""
    bar = Progress("fetching shards", 5)
    clock[0] += 11
    bar.step(size=3 << 20)
    assert capsys.readouterr().err == "fetching shards: 0 of 5, 3 MiB\n"
    clock[0] += 4
    bar.step(1)
    assert capsys.readouterr().err == ""
    clock[0] += 25
    bar.step(1)
    assert capsys.readouterr().err == "fetching shards: 2 of 5, 3 MiB, about 1.0 min left\n"


def test_an_item_is_finished_when_the_next_is_asked_for(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """An item would be counted before its work is done, or progress would spoil the JSON on standard output."""
    for item in Progress("features", 3).over("abc"):
        clock[0] += 10 if item == "b" else 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "features: 2 of 3, about 0.1 min left\n")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_one_process_of_a_node_speaks(
    clock: list[float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    lines: int,
) -> None:
    """Eight processes would print every line eight times."""
    monkeypatch.setenv("LOCAL_RANK", rank)
    bar = Progress("reading", 2)
    clock[0] += 60
    bar.step(1)
    assert len(capsys.readouterr().err.splitlines()) == lines
