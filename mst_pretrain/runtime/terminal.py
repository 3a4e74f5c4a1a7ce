r"""Names of files, members, classes and weights as a terminal may be shown them.

A name may have a line break, behind which it could imitate a message of ours, or an escape sequence, which a terminal
obeys. Both are printed as their numbers: ``\x1b``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Control characters, line and paragraph separators, and those that turn the direction of writing round
UNSEEN = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # in no name of a class
IN_A_NAME = re.compile(f"[{UNSEEN}]")
IN_A_MESSAGE = re.compile(rf"(?![\n\t])[{UNSEEN}]")


def shown(name: object) -> str:
    """A name in one line, without anything that a terminal obeys."""
    return IN_A_NAME.sub(_number, str(name))


def shown_message(text: str) -> str:
    """A message of several lines, in which names may stand, without anything else that a terminal obeys."""
    return IN_A_MESSAGE.sub(_number, text)


def first_shown(names: Sequence[object], count: int) -> str:
    """The first few of a list for a message."""
    return ", ".join(map(shown, names[:count])) + (", ..." if len(names) > count else "")


def _number(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
