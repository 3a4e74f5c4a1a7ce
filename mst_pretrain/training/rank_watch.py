"""Every process of a training gives a sign of life; one that gives none for a while takes the job down, by name.

A collective that waits for a process that is stopped, or whose machine is gone, would wait for half an hour and then
blame the process that waited. So a thread of each process writes a sign to the meeting point of the job and looks at
the next process' one (the last looks at the first). Signs are counted, not timed: a job that is suspended as a whole
and goes on later has missed none. A main thread that makes no progress and computes nothing for nearly as long as a
collective waits is told of by its own process, with the line of code that it hangs in.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from mmengine.logging import print_log
from torch.distributed import DistError, TCPStore

from ..runtime.errors import LOST, UserError

SILENCE = 60.0  # seconds without a sign after which a process is taken for lost
SIGNS = 12  # in that time
OTHERS_WAIT = 15.0  # seconds in which the process that hangs speaks first
BEFORE_COLLECTIVES = 0.9  # of their time-out: then a main thread that stands still is told of
RUNNING, DONE, FAILED = "running", "done", "failed"
IDLE = 0.01  # share of the time in which a main thread that hangs computes at most
SHOWN = 3  # calls of the stack of a main thread that hangs


class RankWatch:
    """Gives signs of life for this process and looks for those of the next one. It ends the process, never raises.

    Args:
        silence: Seconds.
        timeout: Seconds that a collective waits.
        store: The meeting point, by a connection of its own.
        rank, size: Of this process and of the job.
        name: Of this start, which no earlier one of the same job had.
        work_dir: Where the checkpoints are.
    """

    def __init__(
        self, silence: float, timeout: float, store: Any, rank: int, size: int, name: str, work_dir: str
    ) -> None:
        self.silence, self.timeout, self.store = silence, timeout, store
        self.rank, self.size, self.name, self.work_dir = rank, size, name, work_dir
        self.progress = self.step = self.signs = 0
        self.main = threading.main_thread().ident
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    @classmethod
    def begin(cls, silence: float, timeout: float, work_dir: str) -> RankWatch | None:
        """Start the thread; None in a process that is alone. All processes come here together.

        Raises:
            UserError: ``silence`` is not positive.
        """
        if not silence > 0:
            raise UserError(
                f"default_hooks.watch.silence is {silence}. Give the seconds without a sign of life, such "
                f"as {SILENCE:g}."
            )
        if get_world_size() == 1:
            return None
        if "MASTER_ADDR" not in os.environ:
            print_log(
                "The processes were started without MASTER_ADDR, so that a lost one is only noticed by the others' "
                "time-out. tools/dist_train.sh, torchrun and Slurm set it.",
                "current",
                logging.WARNING,
            )
            return None
        name = [secrets.token_hex(4)]
        broadcast_object_list(name)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(
            address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=silence)
        )
        watch = cls(silence, timeout, store, get_rank(), get_world_size(), name[0], work_dir)
        watch.tell(RUNNING)
        watch.thread.start()
        return watch

    def moved(self, step: int) -> None:
        """The main thread is at another place of the training, in this step."""
        self.progress, self.step = self.progress + 1, step

    def stop(self, state: str) -> None:
        """The training is over for this process: DONE or FAILED."""
        self.over.set()
        self.thread.join(self.silence)
        with suppress(DistError, RuntimeError):  # the meeting point may be gone before: nobody looks any more
            self.tell(state)

    def tell(self, state: str) -> None:
        """Write a sign of life."""
        self.signs += 1
        record = {"sign": self.signs, "progress": self.progress, "step": self.step, "state": state}
        record |= {"process": os.getpid(), "machine": platform.node()}
        self.store.set(self._key(self.rank), json.dumps(record))

    def sign_of(self, rank: int) -> dict[str, Any]:
        """The newest sign of a process; waits for its first one."""
        return dict(json.loads(self.store.get(self._key(rank))))

    def _key(self, rank: int) -> str:
        return f"mst_sign/{self.name}/{rank}"

    def _watch(self) -> None:
        """The thread."""
        beat, following = self.silence / SIGNS, (self.rank + 1) % self.size
        last, progress, computed = dict[str, Any](), -1, 0.0
        missed = unanswered = stood = 0
        while not self.over.wait(beat):
            try:
                self.tell(RUNNING)
                sign = self.sign_of(following)
            except (DistError, RuntimeError) as error:
                unanswered += 1
                if unanswered >= SIGNS or "imeout" in str(error):  # which has waited for the silence itself
                    self._end(self._without_meeting_point(error))
                continue
            unanswered = 0
            missed = missed + 1 if sign == last and sign["state"] != DONE else 0
            before, computed = computed, self._computed()
            idle = self.progress == progress and computed - before < IDLE * beat
            stood = stood + 1 if idle else 0
            last, progress = sign, self.progress
            if missed >= SIGNS:
                self._end(self._silent(following, sign))
            if stood * beat >= BEFORE_COLLECTIVES * self.timeout:
                self._end(self._standing())

    def _computed(self) -> float:
        """Seconds that the main thread has computed for, where the system tells: a long evaluation is no hanging."""
        clock = getattr(time, "pthread_getcpuclockid", None)
        return time.clock_gettime(clock(self.main)) if clock else 0.0

    def _silent(self, rank: int, sign: dict[str, Any]) -> str:
        """What to say of a process that gives no sign."""
        who = f"rank {rank} (process {sign['process']} on {sign['machine']})"
        if sign["state"] == FAILED:
            return f"{who} ended with an error, which stands in its own output."
        return (
            f"{who} has given no sign of life for {self.silence:g} s; it was in step {sign['step'] + 1}. Usual causes: "
            "it was killed (out of memory: see dmesg) or stopped (SIGSTOP, a debugger), or its machine or the network "
            "to it is down."
        )

    def _without_meeting_point(self, error: Exception) -> str:
        reason = str(error).partition("\n")[0][:120]
        return (
            f"the meeting point of the processes at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} has not "
            f"answered for {self.silence:g} s ({reason}). Its process (torchrun, or rank 0 under Slurm) was stopped or "
            "killed, or its machine or the network to it is down."
        )

    def _standing(self) -> str:
        """What to say where this process has stood still; the one that hangs speaks first."""
        others = {rank: self.sign_of(rank) for rank in range(self.size) if rank != self.rank}
        behind = [rank for rank, sign in others.items() if sign["progress"] < self.progress]
        ahead = any(sign["progress"] > self.progress for sign in others.values())
        seconds = f"{BEFORE_COLLECTIVES * self.timeout:.0f} s"
        if behind and not ahead:
            time.sleep(OTHERS_WAIT)
            listed = ", ".join(map(str, behind[:SHOWN]))
            return f"rank {listed} hangs in step {others[behind[0]]['step'] + 1}, for {seconds} now."
        if not ahead and self.rank > 0:
            time.sleep(OTHERS_WAIT)
        return (
            f"rank {self.rank} (process {os.getpid()} on {platform.node()}) hangs in step {self.step + 1}, for "
            f"{seconds} now, in {self._place()}. Usual causes: a network disk or a data worker that does not answer, a "
            "GPU that failed, or a longer pause than env_cfg.dist_cfg.timeout allows."
        )

    def _place(self) -> str:
        """Where the main thread is."""
        frames = traceback.extract_stack(sys._current_frames()[self.main or 0])[-SHOWN:]
        return " < ".join(
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)
        )

    def _end(self, message: str) -> None:
        """Say it and end this process, whose main thread waits for ever."""
        advice = f"The newest checkpoint in {self.work_dir} is whole: start again with --resume. [R20]"
        os.write(2, f"error: {message} {advice}\n".encode(errors="backslashreplace"))
        os._exit(LOST)
