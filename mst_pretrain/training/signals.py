"""SIGTERM and SIGUSR1 stop a training after its step, with a checkpoint and an exit code of its own.

Slurm sends SIGUSR1 (``--signal=USR1@120``) or SIGTERM before it ends a job, torchrun SIGTERM when it is stopped.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from ..runtime.errors import LOST, STOPPED

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
LAUNCHED = "TORCHELASTIC_RUN_ID"  # set in processes that torchrun has started, and will say why they end
SAME_REQUEST = 2.0  # seconds: a batch system signals torchrun and its processes, torchrun signals those again


class _Phase(Enum):
    """What a signal finds: nothing to save yet, a step that it can wait for, a run that is done, or a broken one."""

    START, STEPS, DONE, BROKEN = range(4)


class _Request:
    """The signal that this process received, and when; where the run is."""

    number = 0
    at = 0.0
    phase = _Phase.START


def begin_steps() -> None:
    """From now on a signal waits for the end of a step; before, there is nothing to save, and it ends the process."""
    _Request.phase = _Phase.STEPS


def handle_signals() -> None:
    """For a tool that only trains: stop signals are handled from now to the very end of the process.

    While Python takes itself down, which lasts a second or two, it restores the default of every handler but "ignore":
    a signal would then turn a finished or properly stopped run into a killed one.
    """
    _install()
    atexit.register(ignore_signals)
    if not hasattr(os, "register_at_fork"):  # Windows
        return
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # what a worker gets is not for us
    threading.Thread(target=_end_at_start, args=(received,), daemon=True).start()


def _end_at_start(received: int) -> None:
    """A handler in Python waits while the main thread does, for the other processes: 30 seconds, then it is killed."""
    while _Request.phase is _Phase.START:
        number = os.read(received, 1)[0]
        if number in STOP_SIGNALS and _Request.phase is _Phase.START:
            _end_with_nothing(number)


def ignore_signals() -> None:
    """For the very end of a process."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _install() -> dict[int, Any]:
    """Set our handlers; the ones of before. Python can do so in its main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, _remember) for number in STOP_SIGNALS}


def stop_requested() -> bool:
    """Whether a signal has asked this process to stop."""
    return _Request.number != 0


@contextmanager
def stop_signals() -> Iterator[None]:
    """While the block runs, a stop signal is remembered; a second one ends the process at once. See begin_steps()."""
    _Request.number, _Request.phase = 0, _Phase.START
    before = _install()
    try:
        yield
    finally:
        _Request.phase = _Phase.DONE
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def end_quietly() -> Iterator[None]:
    """While the block runs, a stop signal ends the process at once: another one is lost, no step will end."""
    if stop_requested() and LAUNCHED in os.environ:
        os._exit(LOST)
    phase, _Request.phase = _Request.phase, _Phase.BROKEN
    before = _install()
    try:
        yield
    finally:
        _Request.phase = phase
        for number, handler in before.items():
            signal.signal(number, handler)


def _remember(number: int, frame: Any) -> None:
    now, name = time.monotonic(), signal.Signals(number).name
    if _Request.phase is _Phase.DONE:
        return
    if _Request.phase is _Phase.BROKEN:
        os._exit(LOST)
    if _Request.phase is _Phase.START:
        _end_with_nothing(number)
    if stop_requested():
        if LAUNCHED in os.environ and now - _Request.at < SAME_REQUEST:
            return
        os._exit(128 + number)
    _Request.number, _Request.at = number, now
    # not print: the signal may have come in the middle of one
    os.write(2, f"{name}: stopping after this step. A second signal stops at once.\n".encode())


def _end_with_nothing(number: int) -> None:
    if _Request.number == 0:  # else the other thread is about to end the process
        _Request.number = number
        name = signal.Signals(number).name
        os.write(2, f"{name} before the first step: there is nothing to save.\n".encode())
        os._exit(STOPPED)
