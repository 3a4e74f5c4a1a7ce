"""What our torchrun says of a process that ended, and when it starts the processes again."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException

from mst_pretrain.runtime.errors import LOST, STOPPED
from mst_pretrain.training import elastic, meeting


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (int(signal.SIGKILL), "was ended by SIGKILL. Usual cause: the machine ran out of memory"),
        (int(signal.SIGBUS), "was ended by SIGBUS. Usual cause: /dev/shm is too small"),
        (int(signal.SIGSEGV), "was ended by SIGSEGV. Usual cause: a library crashed"),
        (63, "was ended by "),
    ],
)
def test_what_ended_a_process_is_named(number: int, words: str) -> None:
    """A process that the system killed for memory would be a number, -9, below a page of torchrun's log."""
    assert elastic.killed(3, 77, number).startswith(f"rank 3 (process 77) {words}")


def test_the_process_that_ended_first_is_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others, which torchrun itself ends, would be named as the cause."""
    monkeypatch.setattr(PContext, "close", lambda self: None)
    elastic._name_the_first()
    codes = {0: None, 1: -9}

    def handler(rank: int) -> Any:
        return SimpleNamespace(proc=SimpleNamespace(poll=lambda: codes[rank], pid=1000000000 + rank))

    context: Any = SimpleNamespace(
        subprocess_handlers={0: handler(0), 1: handler(1)}, envs={0: {"RANK": "4"}, 1: {"RANK": "5"}}
    )
    PContext.close(context)
    said = capsys.readouterr().err
    assert (
        said.startswith("error: rank 5 (process 1000000001) was ended by SIGKILL")
        and said.count("error") == 1
    )
    codes[0] = -15
    PContext.close(context)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("code", "meeting_kind", "left"),
    [
        *((-9, "static", 3), (1, "static", 3), (LOST, "c10d", 3), (2, "static", 0), (2, "c10d", 0)),
        (STOPPED, "static", 0),
        (STOPPED, "c10d", 3),  # another machine was asked to stop and leaves
    ],
)
def test_what_would_end_alike_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, code: int, meeting_kind: str, left: int
) -> None:
    """A job that was asked to stop would begin again, and one with a mistake in its config fail three times more."""
    failures = {0: SimpleNamespace(exitcode=-15, timestamp=2), 1: SimpleNamespace(exitcode=code, timestamp=1)}
    result = SimpleNamespace(is_failed=lambda: True, failures=failures)
    monkeypatch.setattr(LocalElasticAgent, "_monitor_workers", lambda self, group: result)
    signalled = list[int]()
    elastic._restart_with_reason(signalled)
    handler = SimpleNamespace(get_backend=lambda: meeting_kind)
    group = SimpleNamespace(spec=SimpleNamespace(rdzv_handler=handler))
    agent: Any = SimpleNamespace(_remaining_restarts=3, _worker_group=group)
    assert LocalElasticAgent._monitor_workers(agent, None) is result and agent._remaining_restarts == left  # type: ignore[arg-type]
    if code == STOPPED and meeting_kind == "c10d":
        signalled.append(int(signal.SIGTERM))
        with pytest.raises(SignalException):
            LocalElasticAgent._monitor_workers(agent, None)  # type: ignore[arg-type]


GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:28577"
)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError(GLOO), True),
        (
            RuntimeError(
                "[1] is setting up NCCL communicator ...: remote process exited or there was a network"
            ),
            True,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_errors_about_other_processes_are_told_from_own_ones(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_lost: bool
) -> None:
    """A defect would be reported as another process' end, or that end as a traceback of gloo's."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not meeting.lost(error)  # alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert meeting.lost(error) is is_lost


def test_the_likely_cause_of_a_time_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would read a source line of gloo's and no cause."""
    monkeypatch.setattr(meeting, "LAUNCHER_ENDS", 0.0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    cfg: Any = {"work_dir": "runs/x", "env_cfg": {"dist_cfg": {"timeout": 60}}}
    waited = str(
        meeting.explain_lost(cfg, RuntimeError("[/a/gloo/b.cc:5] Timed out waiting 60000ms for recv"))
    )
    assert waited.startswith(
        "rank 1 of 2 waited 60 s for another process in vain (Timed out waiting 60000ms for recv)"
    )
    assert "network disk" in waited and "runs/x is whole: --resume" in waited
    ended = str(meeting.explain_lost(cfg, RuntimeError(GLOO)))
    assert "lost the connection to another process, which ended (Connection closed by peer" in ended
