"""Errors that a user can mend: one message with what is wrong, where, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input. The message names the file or setting and the remedy; tools print it without a traceback."""


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit: 0 or its own code, 2 after a :class:`UserError`, 130 after Ctrl-C."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
