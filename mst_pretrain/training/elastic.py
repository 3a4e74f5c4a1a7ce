"""``torchrun`` for our trainings: signals are handed on, the process that ended first is named, restarts make sense."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import LOST, STOPPED
from .signals import STOP_SIGNALS, ignore_signals

SPOKEN = (2, STOPPED, LOST)  # codes of a process that has said why it ends
FINAL = (2, STOPPED)  # of one that would end in the same way again, or was asked to end
CHILDREN = Path("/proc/self/task")  # Linux


def torchrun() -> None:
    """``torchrun`` for the ``dist_*.sh`` scripts: ends with a failed process' code, no traceback.

    SIGTERM and SIGUSR1 are handed on to the processes, which write a checkpoint together and end: torchrun itself
    would not know SIGUSR1, and would kill them 30 seconds after SIGTERM. With ``--max-restarts`` what was stopped by a
    signal is not started again, nor what ended with an error that its user has to mend; but with ``--nnodes=1:2`` the
    machines go on that no signal has reached.
    """
    signalled = list[int]()
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    if not CHILDREN.is_dir():  # macOS, Windows
        print("note: on this system SIGTERM and SIGUSR1 end a run of several processes at once", flush=True)
    refuse = api._terminate_process_handler

    def hand_on(number: int, frame: Any) -> None:
        signalled.append(number)
        if number not in STOP_SIGNALS:
            refuse(number, frame)
        for process in _children():
            os.kill(process, number)

    vars(api)["_terminate_process_handler"] = hand_on  # what torchrun installs once its processes are there
    for number in STOP_SIGNALS:
        signal.signal(number, hand_on)
    _name_the_first()
    _restart_with_reason(signalled)
    try:
        main()
    except api.SignalException:
        sys.exit(STOPPED)
    except torch.distributed.DistNetworkError as error:
        print(
            f"error: the processes cannot meet ({str(error).splitlines()[0]}). Another run may use the port: give a "
            "free one (PORT=29501 before the command), and with several machines the first one's MASTER_ADDR.",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(2)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        if code not in SPOKEN and code >= 0:
            print(f"a process ended with code {code}; its message stands above", file=sys.stderr, flush=True)
        sys.exit(code if code > 0 else LOST)
    finally:
        ignore_signals()


def _name_the_first() -> None:
    """Before torchrun ends the other processes, say which one ended; one that is stopped could not obey: kill it."""
    from torch.distributed.elastic.multiprocessing.api import PContext

    close = PContext.close

    def close_with_words(self: Any, *args: Any, **kwargs: Any) -> None:
        handlers = {} if vars(self).get("told") else getattr(self, "subprocess_handlers", None) or {}
        vars(self)["told"] = True  # of the others' ends this one is the cause
        for local_rank, handler in sorted(handlers.items()):
            code, process = handler.proc.poll(), handler.proc.pid
            rank = self.envs[local_rank].get("RANK", local_rank)
            if code is not None and code < 0:
                print(f"error: {killed(rank, process, -code)}", file=sys.stderr, flush=True)
            elif code is None and _state(process) == "T":
                os.kill(process, signal.SIGKILL)
        close(self, *args, **kwargs)

    PContext.close = close_with_words  # type: ignore[method-assign]


def killed(rank: int | str, process: int, number: int) -> str:
    """What to say of a process that a signal ended."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    why = {
        "SIGKILL": "the machine ran out of memory (dmesg shows it; lower num_workers or the batch), or it was killed",
        "SIGBUS": "/dev/shm is too small for the data workers",
        "SIGTERM": "the batch system or its user ended it",
    }.get(name, "a library crashed; its output stands above")
    return f"rank {rank} (process {process}) was ended by {name}. Usual cause: {why}. [R20]"


def _restart_with_reason(signalled: list[int]) -> None:
    """Use up the restarts where another start would end in the same way.

    Args:
        signalled: The stop signals that this process has received so far; they are added while it runs.
    """
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing.api import SignalException

    monitor = LocalElasticAgent._monitor_workers

    def monitored(self: Any, group: Any) -> Any:
        result = monitor(self, group)
        if result.is_failed():
            first = min(result.failures.values(), key=lambda failure: failure.timestamp)
            moving = (
                self._worker_group.spec.rdzv_handler.get_backend() != "static"
            )  # machines may come and go
            if first.exitcode == STOPPED and signalled and moving:
                # torchrun's own way to leave the others alone: with any other the job would be closed for all
                raise SignalException("stopped", signal.Signals(signalled[0]))
            if first.exitcode in FINAL and not (first.exitcode == STOPPED and moving):
                self._remaining_restarts = 0
            elif self._remaining_restarts:
                left = f"{self._remaining_restarts} restarts left"
                print(
                    f"the processes are started again, from the newest checkpoint ({left})",
                    file=sys.stderr,
                    flush=True,
                )
        return result

    LocalElasticAgent._monitor_workers = monitored  # type: ignore[method-assign]


def _state(process: int) -> str:
    """The state of a process as Linux has it: T for one that was stopped."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def _children() -> list[int]:
    """Processes that this one has started."""
    listings = CHILDREN.glob("*/children")
    return [int(process) for listing in listings for process in listing.read_text().split()]
