"""Errors that a user can mend: one message with what is wrong, where, and what to do."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEBUG = "MST_DEBUG"  # environment variable; 1 shows the traceback behind a UserError


class UserError(Exception):
    """Bad input. The message names the file or setting and the remedy; tools print it without a traceback."""


class InvalidValue(ValueError):
    """An argument with a value that its class or function can never take, such as a config may hold."""


@contextmanager
def checking_arguments(of: str) -> Iterator[None]:
    """What another library's constructor refuses in this block becomes an :class:`InvalidValue` that names ``of``."""
    try:
        yield
    except (ValueError, AssertionError) as error:
        if type(error) not in (ValueError, AssertionError) or not str(error):
            raise
        raise InvalidValue(f"{of}: {error}") from error


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit: 0 or its own code, 2 after a :class:`UserError`, 130 after Ctrl-C.

    With ``MST_DEBUG=1`` the traceback of a :class:`UserError` and of all its causes comes before its message.
    """
    try:
        code = main() or 0
    except UserError as error:
        if os.environ.get(DEBUG) == "1":
            traceback.print_exception(error, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
