"""Errors that a user can mend: one message with what is wrong, where, and what to do."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Callable

from .terminal import shown_message

DEBUG = "MST_DEBUG"  # environment variable; 1 shows the traceback behind a UserError

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not finished, to be continued
LOST = 71  # EX_OSERR of sysexits.h: another process of the job ended or does not answer, to be continued


class UserError(Exception):
    """Bad input. The message names the file or setting and the remedy; tools print it without a traceback."""


class UnusableImage(UserError):
    """An image, or its label map, is missing, unreadable or damaged; training takes another one in its place."""


class LostProcess(UserError):
    """Another process of this job ended or does not answer; nothing is wrong with this one."""


class Stopped(Exception):
    """A run ended early because it was asked to, and can be resumed."""


class InvalidValue(ValueError):
    """An argument with a value that its class or function can never take, such as a config may hold."""


def unexpanded(message: str) -> str:
    """What to add to a message about a missing path that the shell would have written out, had it no quotes."""
    if re.search(r"does not exist|not found", message) and re.search(r"(^|[\s'\"=(])~|\$\w|\$\{", message):
        return " ~ and $VARIABLES are not expanded by the program: write them out, or leave the quotes away."
    return ""


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit.

    The code is 0 or the tool's own, 2 after a :class:`UserError` or where an extra is not installed, 71 after
    :class:`LostProcess`, 75 after :class:`Stopped`, 130 after Ctrl-C.
    With ``MST_DEBUG=1`` the traceback of a :class:`UserError` and of all its
    causes comes before its message.
    A character that the terminal cannot show is printed as its number, whatever it is part of; so is one of an error's
    message that a terminal would obey.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
    except UserError as error:
        if os.environ.get(DEBUG) == "1":
            traceback.print_exception(error, file=sys.stderr)
        said = f"error: {error}{unexpanded(str(error))}"
        print(shown_message(said), file=sys.stderr, flush=True)
        code = LOST if isinstance(error, LostProcess) else 2
    except ModuleNotFoundError as error:
        from .extras import missing_extra  # which imports this module

        missing = missing_extra(error)
        if missing is None:
            raise
        if os.environ.get(DEBUG) == "1":
            traceback.print_exception(error, file=sys.stderr)
        print(f"error: {missing}", file=sys.stderr, flush=True)
        code = 2
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        code = STOPPED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
