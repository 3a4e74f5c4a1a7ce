"""What a checkpoint may ask of a reader: its archive is whole, and what it holds fits into its file."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runtime.errors import UserError
from .kinds import CUT

INFLATED = 10  # times a file's size that its archive may unpack to; weights hardly shrink, and torch.save packs nothing
DEEPEST = 100  # dictionaries and lists inside one another; an optimizer's state has five
ENTRIES = 2_000_000  # values that are reached; a shared dictionary counts wherever it is
UNBACKED = 1 << 30  # bytes of values without memory of their own (expanded tensors)
ASKED = re.compile(r"tried to allocate (\d+) bytes")
HOLDING = (Tensor, Mapping, list, tuple, set)
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


def refuse_damaged_archive(path: Path) -> None:
    """Raise a UserError where a zip archive unpacks to far more than its size, or a checksum in it does not fit.

    PyTorch writes a checksum of every member and compares none, so that a flipped bit would become a weight. A file in
    which no checksum fits was written without them (``torch.serialization.set_crc32_options(False)``) and is taken.
    """
    right, wrong = 0, ""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > INFLATED * path.stat().st_size:
                raise UserError(
                    f"{path} has {path.stat().st_size:,} bytes and would unpack to {unpacked:,}, as no file of "
                    "torch.save does: it was made to fill the memory, or is damaged. Ask its author for another file."
                )
            for member in members:
                if _fits(archive, member):
                    right += 1
                else:
                    wrong = wrong or member.filename
    except ARCHIVE_ERRORS as error:
        size = f"{path.stat().st_size:,} bytes are here"
        raise UserError(
            f"{path} " + CUT.format(f"the end of its archive is missing or damaged; {size}")
        ) from error
    if wrong and right:
        raise UserError(
            f"{path} is damaged ({wrong} in it does not fit its checksum): copy it again, or use the previous "
            "checkpoint of the run."
        )


def _fits(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a member's bytes have its checksum. Damage to the archive itself raises one of ARCHIVE_ERRORS."""
    try:
        with archive.open(member) as stream:
            while stream.read(1 << 20):
                pass
    except zipfile.BadZipFile as error:
        if "CRC" not in str(error):
            raise
        return False
    return True


def asks_too_much(error: Exception, size: int) -> bool:
    """Whether an error is about memory that a file of ``size`` bytes asked for and cannot need."""
    found = ASKED.search(str(error))
    return found is not None and int(found[1]) > max(size, UNBACKED)


def refuse_absurd(path: Path, content: Mapping[Any, Any]) -> None:
    """Raise a UserError where what was read is endless, nested beyond use, or stands for far more values than it has.

    A file of a few bytes can hold a dictionary that contains itself, one of which every level holds the next one twice,
    and a tensor of a trillion values that are all the same one. Sparse and nested tensors have no values to load.
    """
    waiting: list[tuple[Any, int]] = [(content, 0)]
    reached = unbacked = 0
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Tensor):
            if value.is_meta:  # named with its weight where it is used
                continue
            if value.layout != torch.strided or value.is_nested:
                raise _absurd(path, f"a tensor without plain values ({value.layout})")
            size = value.numel() * value.element_size()
            unbacked += max(0, size - value.untyped_storage().nbytes())
        elif isinstance(value, Mapping | list | tuple | set):
            inner = value.values() if isinstance(value, Mapping) else value
            reached += len(inner)
            waiting += [(one, depth + 1) for one in inner if isinstance(one, HOLDING)]
        if depth > DEEPEST:
            raise _absurd(path, f"more than {DEEPEST} levels of dictionaries and lists")
        if reached > ENTRIES:
            raise _absurd(path, f"more than {ENTRIES:,} entries")
        if unbacked > UNBACKED:
            raise _absurd(path, "tensors of more values than the file has")


def _absurd(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} holds {what}, as no checkpoint does: it was made to occupy the reader, or is damaged. Nothing was "
        "loaded. Ask its author for a .safetensors file."
    )
