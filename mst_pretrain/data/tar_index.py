"""Where the images of one tar shard lie in it, so that workers can read any of them without the others."""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.atomic import replacing
from ..runtime.errors import UserError
from .fetch import cache_folder
from .files import IMAGE_SUFFIXES, first_of

FORMAT = 1  # of the kept index
LABEL = "cls"
IMAGES = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
KEY = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)")  # webdataset's: up to the first dot of the file name
HIDDEN = re.compile(r"(.*/)?(\.(?!/)|__[^/]*__)[^/]*(/.*)?")  # ._x.jpg of macOS, __meta__ of webdataset
BLOCK = tarfile.BLOCKSIZE

Span = tuple[int, int]  # offset in the tar file, size


@dataclass(frozen=True)
class TarIndex:
    """The n samples of a shard, in the order of their images.

    Attributes:
        names: Member names of the images, [n] UTF-8 bytes.
        images: Their offsets and sizes, [n, 2] int64.
        labels: The same of their ``.cls`` members, size -1 where there is none.
    """

    names: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def index_tar(path: Path) -> TarIndex:
    """The index of a shard (:func:`read_headers`), kept in the cache folder for as long as the file does not change.

    Reading all headers takes about half a minute per million members; the kept index is read in no time.
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
    with _open(path) as tar:
        try:
            for member in tar:
                match = KEY.fullmatch(member.name)
                if not member.isreg() or match is None or HIDDEN.fullmatch(member.name):
                    continue
                parts = samples.setdefault(match[1], {})
                if match[2].lower() in parts:
                    raise UserError(f"{path} holds {member.name} twice. Give every sample a key of its own.")
                parts[match[2].lower()] = (member.name, (member.offset_data, member.size))
        except (tarfile.TarError, OSError) as error:
            raise _damaged(path, str(error)) from error
        _check_end(path, tar.offset)
    bare = [f"{key}.({' '.join(parts)})" for key, parts in samples.items() if not _image_of(parts)]
    if bare:
        raise UserError(
            f"{path}: {len(bare)} of {len(samples)} samples have no image ({' '.join(IMAGES)}): {first_of(bare)}. A "
            "sample's key ends at the first dot of the file name; rename or remove these members."
        )
    double = [key for key, parts in samples.items() if len(set(IMAGES) & set(parts)) > 1]
    if double:
        raise UserError(
            f"{path}: {len(double)} samples have two images under one key: {first_of(double)}. Give each its own key."
        )
    if not samples:
        raise UserError(f"{path} holds no image ({' '.join(IMAGES)}). Check the path.")
    images = [parts[_image_of(parts)] for parts in samples.values()]
    labels = [parts[LABEL][1] if LABEL in parts else (0, -1) for parts in samples.values()]
    return TarIndex(
        np.array([name.encode(errors="surrogateescape") for name, _ in images]),
        np.array([span for _, span in images], np.int64),
        np.array(labels, np.int64),
    )


def _image_of(parts: dict[str, tuple[str, Span]]) -> str:
    return next((extension for extension in parts if extension in IMAGES), "")


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
