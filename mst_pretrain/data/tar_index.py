"""Where the images of one tar shard lie in it, so that workers can read any of them without the others."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.atomic import replacing
from ..runtime.errors import UserError
from .fetch import cache_folder
from .files import first_of
from .suffixes import BESIDE, FORMER, HIDDEN, IMAGE_SUFFIXES, describe_left_out, suffix_of
from .tar_members import members_of

FORMAT = 2  # of the kept index
LABEL = "cls"
KEY = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)")  # webdataset's: up to the first dot of the file name
IN_HIDDEN = re.compile(r"(.*/)?(\.(?!/)|__[^/]*__)[^/]*(/.*)?")  # ._x.jpg of macOS, __meta__ of webdataset
BLOCK = tarfile.BLOCKSIZE

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
    with _open(path) as tar:
        try:
            for member in members_of(tar):
                match = KEY.fullmatch(member.name)
                if not member.isreg():
                    continue
                if IN_HIDDEN.fullmatch(member.name):
                    left_out[HIDDEN] += member.name.lower().endswith(IMAGE_SUFFIXES)
                    continue
                if match is None:
                    left_out[""] += 1
                    continue
                parts = samples.setdefault(match[1], {})
                if match[2].lower() in parts:
                    raise UserError(f"{path} holds {member.name} twice. Give every sample a key of its own.")
                parts[match[2].lower()] = (member.name, (member.offset_data, member.size))
        except (tarfile.TarError, OSError) as error:
            raise _damaged(path, str(error)) from error
        _check_end(path, tar.offset)
    pictures = {key: _images_of(parts) for key, parts in samples.items()}
    bare = [key for key in samples if not pictures[key]]
    if bare:
        held = describe_left_out(Counter(suffix_of(f"x.{part}") for key in bare for part in samples[key]))
        shown = [f"{key}.({' '.join(samples[key])})" for key in bare]
        raise UserError(
            f"{path}: {len(bare)} of {len(samples)} samples have no image but {held}: {first_of(shown)}. A "
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


def _open(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (tarfile.TarError, OSError) as error:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
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
