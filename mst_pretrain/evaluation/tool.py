"""How an evaluation's tool ends in several processes. Importing it imports no torch: help must not wait for it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from ..runtime.errors import UserError, run_cli
from ..training.processes import OTHER_RANK_WAITS


def speaks() -> bool:
    """Whether this is the first process, also before the process group is there."""
    return int(os.environ.get("RANK", "0")) == 0


def run_tool(main: Callable[[], int | None]) -> None:
    """:func:`run_cli` where every process meets the same error: the first prints it and ends the job."""

    def quiet_elsewhere() -> int | None:
        try:
            return main()
        except UserError:
            if not speaks():
                time.sleep(OTHER_RANK_WAITS)
            raise
        finally:
            if "torch.distributed" in sys.modules:
                from torch import distributed

                if distributed.is_available() and distributed.is_initialized():
                    distributed.destroy_process_group()

    run_cli(quiet_elsewhere)
