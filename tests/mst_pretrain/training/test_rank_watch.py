"""Signs of life: what is said of a process that gives none, and when nothing is said."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from torch.distributed import HashStore

from mst_pretrain.training import rank_watch
from mst_pretrain.training.rank_watch import DONE, FAILED, RUNNING, RankWatch

SILENCE = 0.3


class Told(RankWatch):
    """Keeps what it would say, and ends its thread in the place of the process."""

    said = ""

    def _end(self, message: str) -> None:
        self.said = message
        self.over.set()


def pair(timeout: float = 1800.0) -> tuple[Told, Told]:
    """Two processes' watches at one meeting point."""
    store = HashStore()
    store.set_timeout(timedelta(seconds=5))
    made = [Told(SILENCE, timeout, store, rank, 2, "a", "runs/x") for rank in range(2)]
    for watch in made:
        watch.tell(RUNNING)
    return made[0], made[1]


def test_a_silent_process_is_named_within_the_stated_time() -> None:
    """A stopped process would be waited for as long as a collective waits, and the waiting one be blamed."""
    one, other = pair()
    other.moved(6)
    other.tell(RUNNING)  # and then nothing more
    began = time.monotonic()
    one.thread.start()
    one.thread.join(20)
    assert (
        "rank 1 (process " in one.said and f"no sign of life for {SILENCE:g} s; it was in step 7." in one.said
    )
    assert SILENCE * 0.9 < time.monotonic() - began < 10


@pytest.mark.parametrize(("state", "said"), [(DONE, ""), (FAILED, "ended with an error")])
def test_a_process_that_is_done_is_not_silent(state: str, said: str) -> None:
    """The first process would be ended while it writes the last checkpoint, or an error elsewhere not be told."""
    one, other = pair()
    other.tell(state)
    one.thread.start()
    one.thread.join(3 * SILENCE)
    assert (said in one.said) if said else not one.said
    one.stop(DONE)
    assert one.sign_of(0)["state"] == DONE


def test_two_that_live_say_nothing() -> None:
    """A healthy run would be ended."""
    both = pair()
    for watch in both:
        watch.thread.start()
    time.sleep(4 * SILENCE)
    for watch in both:
        watch.stop(DONE)
        assert watch.said == "" and not watch.thread.is_alive()


@pytest.mark.parametrize(
    ("mine", "others", "said"),
    [
        (3, 5, "rank 0 (process "),
        (5, 3, "rank 1 hangs in step 3"),
        (4, 4, "rank 0 (process "),
    ],
)
def test_the_one_that_is_behind_is_blamed(
    monkeypatch: pytest.MonkeyPatch, mine: int, others: int, said: str
) -> None:
    """The process that waits would be named in the place of the one that hangs in its data."""
    monkeypatch.setattr(rank_watch, "OTHERS_WAIT", 0.0)
    one, other = pair()
    one.progress, other.progress, other.step = mine, others, 2
    one.main = threading.get_ident()
    other.tell(RUNNING)
    words = one._standing()
    assert words.startswith(said)
    if mine <= others:
        assert "test_rank_watch.py:" in words or "rank_watch.py" in words  # where its main thread is


def test_a_main_thread_that_stands_still_is_told_of_before_a_collective_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NCCL would end the process with a page of C++ that names no cause."""
    monkeypatch.setattr(rank_watch, "OTHERS_WAIT", 0.0)
    one, other = pair(timeout=2 * SILENCE)
    other.thread.start()
    one.thread.start()
    one.thread.join(20)
    other.over.set()
    other.thread.join(20)
    assert "hangs in step 1" in one.said


def test_a_long_computation_is_no_hanging() -> None:
    """An evaluation that takes half an hour inside one step would be ended as hanging."""
    one, other = pair(timeout=2 * SILENCE)
    other.thread.start()
    one.thread.start()
    end = time.monotonic() + 4 * SILENCE
    while time.monotonic() < end:
        sum(range(1000))
    assert one.said == "" and one.thread.is_alive()
    for watch in (one, other):
        watch.stop(DONE)


def test_a_meeting_point_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Slurm, where the first process holds it, its end would be a traceback in every other one."""
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    one, _ = pair()

    def gone(*_: Any) -> None:
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(one, "sign_of", gone)
    one.thread.start()
    one.thread.join(20)
    assert "at node1:29500 has not answered" in one.said and "Connection reset by peer" in one.said


def test_a_sign_is_small_and_tells_where_the_process_is() -> None:
    """A thousand processes would fill the meeting point, or the message name no machine."""
    one, _ = pair()
    one.moved(4)
    one.tell(RUNNING)
    sign = one.sign_of(0)
    assert sign["step"] == 4 and sign["progress"] == 1 and sign["machine"] and sign["process"] > 0
    assert len(json.dumps(sign)) < 300
