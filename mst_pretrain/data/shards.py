"""WebDataset tar shards, read at random: each member's place is found once, then one read per image.

Random access keeps what the folders have: every sample once per epoch on any number of ranks and workers, exact
resume, and an order shuffled over all shards instead of inside a buffer.
"""

from __future__ import annotations

import glob
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from .fetch import fetch, is_url
from .files import HEAD_BYTES, IMAGE_SUFFIXES, TAIL_BYTES, find_fault_in, report_faults

BLOCK = 512  # a tar file's unit
LABEL = ".cls"
OPEN_FILES = 64


@dataclass
class Member:
    """One regular file of a tar shard.

    Attributes:
        name: Its path in the shard.
        offset: First byte of its content.
        size: Length of its content.
    """

    name: str
    offset: int
    size: int


class ShardSource:
    """The images of tar shards in the order of the shards and of their members.

    Members of one sample share the path up to the first dot of the file name (WebDataset's rule): ``KEY.jpg``,
    ``KEY.cls``. Exactly one of them is an image; with labels one is a ``.cls`` that holds the class.

    Args:
        shards: Local files.
        labelled: Also read every ``.cls``.

    Raises:
        UserError: A shard is missing, truncated or no tar file, or a sample has no image, two, or no label.
    """

    def __init__(self, shards: list[Path], labelled: bool = False) -> None:
        self.shards = shards
        numbers, offsets, sizes, names, classes = [], [], [], [], []
        for number, shard in enumerate(shards):
            for image, label in samples(shard, labelled):
                numbers.append(number)
                offsets.append(image.offset)
                sizes.append(image.size)
                names.append(image.name.encode())
                classes.append(label)
        if not names:
            raise UserError(f"{len(shards)} shards ({shards[0]} ...) hold no sample. Check the pattern.")
        # Arrays, not lists: a worker's copy of a list of a million objects is a copy in memory.
        self.place = np.array([numbers, offsets, sizes], dtype=np.int64)
        self.names = np.array(names)
        self.labels: list[int] | None = None
        self.classes: list[str] = []
        if labelled:
            numeric = all(name.isdigit() for name in set(classes))
            self.classes = sorted(set(classes), key=lambda name: (int(name) if numeric else 0, name))
            index = {name: place for place, name in enumerate(self.classes)}
            self.labels = [index[name] for name in classes]
        self.open_files: OrderedDict[int, int] = OrderedDict()
        self.owner = os.getpid()

    def __len__(self) -> int:
        return self.place.shape[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "open_files": OrderedDict(), "owner": 0}

    def name(self, index: int) -> str:
        """Shard and member."""
        return f"{self.shards[self.place[0, index]]}:{self.names[index].decode()}"

    def read(self, index: int) -> bytes:
        """The member's bytes."""
        number, offset, size = (int(value) for value in self.place[:, index])
        return self._bytes(number, offset, size)

    def check(self) -> None:
        """Look at the first and last bytes of every image; decode only where these cannot tell."""

        def fault(index: int) -> str:
            number, offset, size = (int(value) for value in self.place[:, index])
            head = self._bytes(number, offset, min(size, HEAD_BYTES))
            tail = self._bytes(number, offset + max(0, size - TAIL_BYTES), min(size, TAIL_BYTES))
            found = find_fault_in(head, tail, size, lambda: self.read(index))
            return f"{self.name(index)} ({found})" if found else ""

        report_faults([found for index in range(len(self)) if (found := fault(index))], len(self))

    def _bytes(self, number: int, offset: int, size: int) -> bytes:
        try:
            content = os.pread(self._descriptor(number), size, offset)
        except OSError as error:
            raise UserError(
                f"{self.shards[number]} cannot be read ({error.strerror}). Copy it again."
            ) from error
        if len(content) < size:
            raise UserError(f"{self.shards[number]} has become shorter than it was. Copy it again.")
        return content

    def _descriptor(self, number: int) -> int:
        """An open shard; the least recently used is closed when there are too many."""
        if self.owner != os.getpid():  # a worker opens its own
            self.open_files, self.owner = OrderedDict(), os.getpid()
        if number not in self.open_files:
            if len(self.open_files) >= OPEN_FILES:
                os.close(self.open_files.popitem(last=False)[1])
            self.open_files[number] = os.open(self.shards[number], os.O_RDONLY)
        self.open_files.move_to_end(number)
        return self.open_files[number]


def samples(shard: Path, labelled: bool) -> Iterator[tuple[Member, str]]:
    """Image and class (empty without labels) of every sample of a shard, in the order of the images."""
    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    keys: set[str] = set()
    with open(shard, "rb") as file:
        for member in members(shard):
            folder, _, base = member.name.rpartition("/")
            stem, dot, extension = base.partition(".")
            key = f"{folder}/{stem}"
            if not stem:
                continue  # hidden files, such as macOS's ._NAME
            keys.add(key)
            if f".{extension}".lower() in IMAGE_SUFFIXES:
                if key in images:
                    raise UserError(
                        f"{shard}: two images have the key '{key.lstrip('/')}' ({images[key].name}, {member.name}). "
                        "A sample has one; write the shard again."
                    )
                images[key] = member
            elif labelled and dot + extension == LABEL:
                file.seek(member.offset)
                labels[key] = file.read(member.size).decode("utf-8", "replace").strip()
    _complain(shard, keys - images.keys(), f"image ({' '.join(IMAGE_SUFFIXES)})")
    if labelled:
        _complain(shard, images.keys() - labels.keys(), f"class ({LABEL})")
    yield from ((member, labels.get(key, "")) for key, member in images.items())


def _complain(shard: Path, keys: set[str], what: str) -> None:
    if keys:
        shown = ", ".join(key.lstrip("/") for key in sorted(keys)[:3])
        raise UserError(f"{shard}: {len(keys)} samples have no {what}: {shown}. Write the shard again.")


def members(shard: Path) -> Iterator[Member]:
    """The regular files of a tar file (ustar, GNU and pax names), found by their headers alone.

    Raises:
        UserError: The file is no tar file, compressed, or ends too early.
    """
    try:
        size = shard.stat().st_size
        with open(shard, "rb") as file:
            offset, long_name = 0, ""
            while True:
                file.seek(offset)
                header = file.read(BLOCK)
                if len(header) == BLOCK and not header.strip(b"\0"):
                    return  # the archive's end
                if len(header) < BLOCK:
                    raise UserError(
                        f"{shard} is truncated: the end of the archive is missing. Copy it again."
                    )
                content = offset + BLOCK
                length = _number(header, shard, offset)
                if content + length > size:
                    raise UserError(f"{shard} is truncated inside {_name(header)}. Copy it again.")
                kind = header[156:157]
                if kind == b"L":
                    long_name = file.read(length).rstrip(b"\0").decode("utf-8", "replace")
                elif kind == b"x":
                    long_name = _pax_path(file.read(length)) or long_name
                elif kind in (b"0", b"\0", b"7"):
                    yield Member(long_name or _name(header), content, length)
                    long_name = ""
                elif kind != b"g":
                    long_name = ""
                offset = content + -(-length // BLOCK) * BLOCK
    except OSError as error:
        raise UserError(f"shard {shard} cannot be read ({error.strerror}). Check the pattern.") from error


def _number(header: bytes, shard: Path, offset: int) -> int:
    """Length of a member's content, after the header's check sum has been compared."""
    try:
        stored = int(header[148:156].split(b"\0")[0].strip() or b"x", 8)
        if stored != sum(header) - sum(header[148:156]) + 8 * 32:
            raise ValueError
        if header[124] & 0x80:  # GNU's binary form, for members above 8 GiB
            return int.from_bytes(header[125:136], "big")
        return int(header[124:136].split(b"\0")[0].strip() or b"0", 8)
    except ValueError as error:
        what = (
            "is no tar file (a compressed one must be unpacked)"
            if offset == 0
            else f"is broken at byte {offset}"
        )
        raise UserError(f"{shard} {what}. Copy it again, or write it as a plain .tar.") from error


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0].decode("utf-8", "replace")
    prefix = (
        header[345:500].split(b"\0")[0].decode("utf-8", "replace") if header[257:263] == b"ustar\0" else ""
    )
    return f"{prefix}/{name}" if prefix else name


def _pax_path(records: bytes) -> str:
    """The ``path`` of a pax header, whose records are ``LENGTH KEY=VALUE\\n``."""
    while records:
        length, _, rest = records.partition(b" ")
        record, records = rest[: int(length) - len(length) - 2], records[int(length) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            return value.decode("utf-8", "replace")
    return ""


def expand_shards(spec: str) -> list[Path]:
    """Local shards of a spec: patterns joined by ``::``, each a path, ``{000..146}``, a glob or a URL.

    Raises:
        UserError: A pattern matches nothing, a shard is missing, or a URL cannot be fetched.
    """
    names: list[str] = []
    for pattern in spec.split("::"):
        for name in _braces(pattern) if "{" in pattern else [pattern]:
            if not is_url(name) and glob.has_magic(name):
                found = sorted(glob.glob(name))
                if not found:
                    raise UserError(f"no file matches {name}. Check the pattern.")
                names += found
            else:
                names.append(name)
    local = [name for name in names if not is_url(name)]
    if missing := [name for name in local if not Path(name).is_file()]:
        raise UserError(
            f"{len(missing)} of {len(names)} shards are missing: {', '.join(missing[:3])}. "
            "Copy them there, or correct the pattern's range."
        )
    return fetch(names)


def _braces(pattern: str) -> list[str]:
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise UserError(
            f"{pattern} has a brace pattern, which needs the webdataset package: pip install "
            "'mst-toolkit[webdataset]'. A glob (*) needs none."
        ) from error
    return list(braceexpand(pattern))
