"""How the processes of a training meet, how long one waits for the others, and what is said when one is lost."""

from __future__ import annotations

import os
import re
import time
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from torch import distributed

from ..runtime.errors import LostProcess, UserError
from .signals import end_quietly

TIMEOUT = 1800.0  # seconds that a process waits for the others, without env_cfg.dist_cfg.timeout
LAUNCHER_ENDS = 3.0  # seconds in which a launcher that has seen a process end says so and ends the others
TIMED_OUT = re.compile(r"timed?[ _-]?out|timeout", re.IGNORECASE)
BY_OTHERS = re.compile(
    r"connection (?:closed|reset|refused)|broken pipe|/gloo/|ncclRemoteError|remote process exited|"
    r"Watchdog caught collective",
    re.IGNORECASE,
)


def waiting_time(cfg: Config) -> float:
    """Seconds that a process waits for the others, see ``env_cfg.dist_cfg.timeout``.

    Raises:
        UserError: It is not a positive number.
    """
    given = ((cfg.get("env_cfg") or {}).get("dist_cfg") or {}).get("timeout", TIMEOUT)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise UserError(
            f"env_cfg.dist_cfg.timeout is {given!r}. Give the seconds that a process waits for the others, such as "
            f"{TIMEOUT:.0f}."
        )
    return float(given)


def meet(cfg: Config) -> None:
    """Join the process group of the launcher, with a time-out for NCCL and gloo.

    Raises:
        LostProcess: The other processes did not come.
    """
    if cfg.launcher == "none" or distributed.is_initialized():
        return
    seconds = waiting_time(cfg)
    own = dict((cfg.get("env_cfg") or {}).get("dist_cfg") or {})
    try:
        if torch.cuda.is_available():
            from mmengine.dist import init_dist
            from mmengine.utils.dl_utils import set_multi_processing

            set_multi_processing(**(cfg.env_cfg.get("mp_cfg") or {}), distributed=True)
            init_dist(cfg.launcher, **{**own, **_place(seconds), "timeout": seconds})
        else:
            distributed.init_process_group("gloo", timeout=timedelta(seconds=seconds), **_place(seconds))
    except (distributed.DistError, RuntimeError, ValueError) as error:
        raise LostProcess(
            f"{_who()} cannot meet the others within {seconds:.0f} s ({first_line(error)}). Usual causes: another "
            "process ended at its start (its message stands above), the first machine's MASTER_ADDR or MASTER_PORT is "
            "wrong or behind a firewall, the machines have no network in common (NCCL_SOCKET_IFNAME, "
            "GLOO_SOCKET_IFNAME), or the first process still looks at its data (env_cfg.dist_cfg.timeout). [R20]"
        ) from error


def _place(seconds: float) -> dict[str, Any]:
    """Where torchrun's processes meet: apart from those of an earlier start, whose addresses are still kept there.

    torchrun's "static" rendezvous, the default of one machine, keeps one store for all starts of a job (torch 2.14).
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = distributed.TCPStore(address, port, size, is_master=False, timeout=timedelta(seconds=seconds))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": distributed.PrefixStore(f"start_{start}", store), "rank": rank, "world_size": size}


def lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone or does not answer, and nothing about this one."""
    if not distributed.is_available() or "WORLD_SIZE" not in os.environ:
        return False
    if isinstance(error, distributed.DistNetworkError | distributed.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and BY_OTHERS.search(str(error)) is not None


def explain_lost(cfg: Any, error: BaseException) -> LostProcess:
    """What to say of it; first the launcher may end this process, which then says nothing."""
    with end_quietly():
        time.sleep(LAUNCHER_ENDS)
    reason = first_line(error)
    latest = f"The newest checkpoint in {cfg.get('work_dir', 'the work directory')} is whole"
    if TIMED_OUT.search(str(error)):
        return LostProcess(
            f"{_who()} waited {waiting_time(cfg):.0f} s for another process in vain ({reason}). Usual causes: a "
            "process hangs in its data (a network disk, a worker), was stopped, its GPU or the network between the "
            f"machines failed, or it made a long pause (env_cfg.dist_cfg.timeout=SECONDS). {latest}: --resume. [R20]"
        )
    return LostProcess(
        f"{_who()} lost the connection to another process, which ended ({reason}). That process' own message, if it "
        f"could write one, stands above. {latest}: --resume. [R20]"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error that is not empty, without the address of a source file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"^\[\S*?/(\S+?:\d+)\]\s*", "", lines[0])[:200]


def _who() -> str:
    return f"rank {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}"
