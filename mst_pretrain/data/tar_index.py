"""Where the images of one tar shard lie in it, so that workers can read any of them without the others."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.atomic import replacing
from ..runtime.errors import UserError
from ..runtime.terminal import shown
from .fetch import cache_folder
from .files import first_of
from .suffixes import BESIDE, FORMER, HIDDEN, IMAGE_SUFFIXES, SPECIAL, describe_left_out, suffix_of
from .tar_members import members_of

FORMAT = 2  # of the kept index
LABEL = "cls"
KEY = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)")  # webdataset's: up to the first dot of the file name
IN_HIDDEN = re.compile(r"(.*/)?(\.(?!/)|__[^/]*__)[^/]*(/.*)?")  # ._x.jpg of macOS, __meta__ of webdataset
BLOCK = tarfile.BLOCKSIZE
LONGEST_HEADER = 1 << 20  # bytes of an extended header; a name has up to 4,096

Span = tuple[int, int]  # offset in the tar file, size


@dataclass(frozen=True)
class TarIndex:
    """The n samples of a shard, in the order of their images.

    Attributes:
        names: Member names of the images, [n] UTF-8 bytes.
        images: Their offsets and sizes, [n, 2] int64.
        labels: The same of their ``.cls`` members, size -1 where there is none.
        left_out: JSON text: the number of other members by suffix.
    """

    names: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    left_out: np.ndarray


def index_tar(path: Path) -> TarIndex:
    """The index of a shard (:func:`read_headers`), kept in the cache folder for as long as the file does not change.

    Reading all headers takes about 8 seconds per million members of a core; the kept index is read in no time.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"Shard {path} cannot be read ({error.strerror}). Check the path.") from error
    state = f"{FORMAT} {path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    kept = cache_folder("indices") / f"{hashlib.sha256(state.encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(kept) as arrays:
            return TarIndex(**arrays)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        pass  # not kept yet, or damaged
    index = read_headers(path)
    try:
        with replacing(kept, durable=False) as part, open(part, "wb") as file:
            np.savez(file, **vars(index))
    except UserError:
        pass  # a read-only or full cache costs time, nothing else
    return index


def read_headers(path: Path) -> TarIndex:
    """Walk over the members. A sample is the members of one key: an image, maybe ``.cls``, others are left aside.

    Raises:
        UserError: The file is not a plain tar file, is damaged, or has a sample that is not of one image.
    """
    samples: dict[str, dict[str, tuple[str, Span]]] = {}
    left_out: Counter[str] = Counter()
    last = -1
    with _opened(path) as tar:
        for member in members_of(tar):
            _check_place(path, member, last)
            last = member.offset
            if not member.isreg():
                left_out[SPECIAL] += not member.isdir()  # links, devices, pipes
                continue
            if IN_HIDDEN.fullmatch(member.name):
                left_out[HIDDEN] += member.name.lower().endswith(IMAGE_SUFFIXES)
                continue
            match = KEY.fullmatch(member.name)
            if match is None:
                left_out[""] += 1
                continue
            parts = samples.setdefault(match[1], {})
            if match[2].lower() in parts:
                raise UserError(
                    f"{path} holds {shown(member.name)} twice. Give every sample a key of its own."
                )
            parts[match[2].lower()] = (member.name, (member.offset_data, member.size))
        end = tar.offset
    _check_end(path, end)
    pictures = {key: _images_of(parts) for key, parts in samples.items()}
    bare = [key for key in samples if not pictures[key]]
    if bare:
        held = describe_left_out(Counter(suffix_of(f"x.{part}") for key in bare for part in samples[key]))
        bad = [f"{key}.({' '.join(samples[key])})" for key in bare]
        raise UserError(
            f"{path}: {len(bare)} of {len(samples)} samples have no image but {held}: {first_of(bad)}. A "
            "sample's key ends at the first dot of the file name; rename or remove these members."
        )
    double = [key for key in samples if len(pictures[key]) > 1]
    if double:
        raise UserError(
            f"{path}: {len(double)} samples have two images under one key: {first_of(double)}. Give each its own key."
        )
    if not samples:
        raise UserError(f"{path} holds no image (.jpg .png .webp ...). Check the path.")
    images = [parts[pictures[key][0]] for key, parts in samples.items()]
    labels = [parts[LABEL][1] if LABEL in parts else (0, -1) for parts in samples.values()]
    return TarIndex(
        np.array([name.encode(errors="surrogateescape") for name, _ in images]),
        np.array([span for _, span in images], np.int64),
        np.array(labels, np.int64),
        np.array(json.dumps(left_out + _beside(samples, pictures))),
    )


def _images_of(parts: Iterable[str]) -> list[str]:
    """The extensions of a sample's images: of the former suffixes where there is one, beside masks of other formats."""
    found = [extension for extension in parts if f".{extension}" in IMAGE_SUFFIXES]
    return [extension for extension in found if f".{extension}" in FORMER] or found


def _beside(samples: dict[str, dict[str, tuple[str, Span]]], pictures: dict[str, list[str]]) -> Counter[str]:
    """Members that are neither a sample's image nor its label, by suffix."""
    others = (part for key, parts in samples.items() for part in parts if part not in (*pictures[key], LABEL))
    suffixes = (suffix_of(f"x.{part}") for part in others)
    return Counter(BESIDE if suffix in IMAGE_SUFFIXES else suffix for suffix in suffixes)


class _Headers(io.FileIO):
    """A tar file of which headers are read and no contents: one that claims gigabytes would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's."""
        if size is None or not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _check_place(path: Path, member: tarfile.TarInfo, last: int) -> None:
    """A member lies behind the one before it and has no holes.

    Python before 3.11.14 walks in circles at a member of negative size, and the bytes of a sparse file are not its
    content. Nothing is ever written under a member's name, so that ``..``, absolute paths, links and devices in a shard
    are names without an effect.
    """
    if member.offset <= last or member.size < 0:
        raise _damaged(path, f"a member of {member.size} bytes at byte {member.offset}")
    if member.issparse():
        raise UserError(
            f"{path} holds {shown(member.name)} as a sparse file, whose bytes cannot be read in place. Pack the shard "
            "again without tar --sparse."
        )


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar file, closed at the end; what goes wrong with it in the block is said of it."""
    try:
        with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield tar
    except (tarfile.TarError, OSError, ValueError) as error:  # ValueError: numbers in extended headers
        with open(path, "rb") as stream:
            compressed = stream.read(2) == b"\x1f\x8b"
        if compressed:
            raise UserError(
                f"{path} is compressed, so its images cannot be read one by one. Unpack the shards: gunzip {path}"
            ) from error
        raise _damaged(path, str(error)) from error


def _check_end(path: Path, offset: int) -> None:
    """Python's reader stops without a word at the end of a file cut between members, and at a damaged header."""
    with open(path, "rb") as file:
        file.seek(offset)
        block, rest = file.read(BLOCK), file.read(1 << 20)
    if len(block) < BLOCK:
        raise _damaged(path, "its end marker is missing")
    if block.strip(b"\0"):
        raise _damaged(path, f"no valid header at byte {offset}")
    if rest.strip(b"\0"):
        raise UserError(
            f"{path} holds a second archive behind its end (tar files joined by cat). Split or rebuild it."
        )


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is truncated or damaged ({why}). Copy it again; if it was fetched, delete it and start again."
    )
