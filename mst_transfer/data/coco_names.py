"""Names of images that are spelled in another way than the one file that they can only mean."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote


def names_on_disk(folder: str | Path, names: Sequence[str]) -> dict[str, str]:
    """The file of each name that is not there as it is spelled, where exactly one file can be meant.

    Windows writes backslashes and takes A.JPG for a.jpg, macOS writes an accent as a character of its own.

    Args:
        folder: Of the images.
        names: Relative to it, as a JSON has them.

    Returns:
        The name on disk, by the name in the JSON; nothing for names that are there, or that no file or
        several may have.
    """
    listed: dict[str, dict[str, list[str]]] = {}

    def files(parent: str) -> dict[str, list[str]]:
        if parent not in listed:
            alike: dict[str, list[str]] = {}
            place = os.path.join(folder, parent)
            for name in os.listdir(place) if os.path.isdir(place) else ():
                alike.setdefault(_key(name), []).append(name)
            listed[parent] = alike
        return listed[parent]

    found: dict[str, str] = {}
    there: Counter[str] = Counter()
    for name in names:
        parent, base = os.path.split(name)
        if base in files(parent).get(_key(base), ()):
            there[os.path.normpath(name)] += 1
            continue
        parent, base = os.path.split(name.replace("\\", "/"))
        alike = files(parent).get(_key(base), [])
        if len(alike) == 1:
            found[name] = os.path.join(parent, alike[0])
            there[os.path.normpath(found[name])] += 1
    return {name: file for name, file in found.items() if there[os.path.normpath(file)] == 1}


def named_alike(folder: str | Path, names: Sequence[str]) -> dict[str, str]:
    """A file of the folder that a name which is not there may mean: a guess, for messages.

    Args:
        folder: Of the images.
        names: Paths of other machines, addresses, names with another suffix or without one.

    Returns:
        The file, by the name; nothing for a name that no file is like.
    """
    files = {}
    for file in sorted(os.listdir(folder)):
        files.update({_key(Path(file).stem): file, _key(file): file})
    found = {}
    for name in names:
        base = unquote(name.partition("?")[0]).replace("\\", "/").rpartition("/")[2]
        like = [files[key] for key in (_key(base), _key(Path(base).stem)) if key in files]
        if like:
            found[name] = like[0]
    return found


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
