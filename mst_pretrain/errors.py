"""Errors that a user can mend: one message with what is wrong, where, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not finished, to be continued


class UserError(Exception):
    """Bad input. The message names the file or setting and the remedy; tools print it without a traceback."""


class Stopped(Exception):
    """A run ended early because it was asked to, and can be resumed."""


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit.

    The code is 0 or the tool's own, 2 after a :class:`UserError`, 75 after :class:`Stopped`, 130 after Ctrl-C.
    """
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        code = STOPPED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
