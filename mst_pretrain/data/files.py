"""Finding image files and telling a whole one from a truncated one, before the first step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .decode import Undecodable, to_rgb
from .packed import PackedPaths

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
TAIL_BYTES = 1024
PNG_END = b"IEND\xaeB`\x82"
SHOWN = 3
BLOCK = 64  # files that one thread looks at in one go

T = TypeVar("T")


def list_images(root: str | Path) -> list[Path]:
    """All image files below ``root`` as paths: see :func:`image_names`."""
    return [Path(root, name) for name in image_names(root)]


def image_names(root: str | Path) -> Iterator[str]:
    """All image files below ``root``, by suffix in any case; hidden files and folders are left out.

    Links are followed; a folder that several of them lead to counts once.

    Yields:
        Names relative to ``root`` in the order of sorted paths: the same on every machine.

    Raises:
        UserError: ``root`` is missing, is not a folder, or holds no image.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"Image folder {root} does not exist. Check the path, or put the images there.")
    if not root.is_dir():
        raise UserError(
            f"{root} is a file, but a folder of images is expected. Give the folder that holds it."
        )
    names = _walk(str(root), "", {os.path.realpath(root)})
    first = next(names, None)
    if first is None:
        wanted = " ".join(IMAGE_SUFFIXES)
        raise UserError(f"Image folder {root} holds no image ({wanted}, any depth). Check the path.")
    yield first
    yield from names


def holds_image(root: str | Path) -> bool:
    """Whether there is an image below a folder; stops at the first."""
    return next(_walk(str(root), "", {os.path.realpath(root)}), None) is not None


def _walk(root: str, below: str, seen: set[str]) -> Iterator[str]:
    """Images below ``root/below``; every folder is sorted by itself, so no list of all names is needed."""
    images: list[str] = []
    folders: list[str] = []
    with suppress(OSError), os.scandir(os.path.join(root, below)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                images.append(entry.name)
    to_visit = set()
    for folder in sorted(folders):
        target = os.path.realpath(os.path.join(root, below, folder))
        if target not in seen:
            seen.add(target)
            to_visit.add(folder)
    for name in sorted([*images, *to_visit]):
        if name in to_visit:
            yield from _walk(root, f"{below}{name}{os.sep}", seen)
        else:
            yield below + name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def visible(names: Iterable[str]) -> list[str]:
    """Those of the names that do not start with a dot: no ``.thumbs``, ``.ipynb_checkpoints`` or ``.git``."""
    return [name for name in names if not name.startswith(".")]


def check_image_files(paths: Sequence[str | Path] | PackedPaths) -> None:
    """Look at the head and tail bytes of every file; decode only where these cannot tell.

    A JPEG must have its end marker, a PNG its IEND chunk, a WebP must be as long as its header says.
    One with more behind its end (a phone adds a film to a photograph), and every other format, is decoded whole.

    Raises:
        UserError: Some files are missing, empty, truncated, or not images: their number and the first names.
    """

    def look(block: range) -> list[str]:
        return [f"{paths[i]} ({fault})" for i in block if (fault := find_fault(paths[i]))]

    report_faults([fault for faults in in_blocks(look, len(paths)) for fault in faults], len(paths))


def in_blocks(look: Callable[[range], T], total: int) -> Iterator[T]:
    """What ``look`` returns for every block of 0 .. ``total`` - 1, in order; it runs in several threads."""
    progress = Progress("looking at images", total)
    blocks = [range(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK)]
    with checking_pool() as pool:
        for block, result in zip(blocks, pool.map(look, blocks), strict=True):
            progress.step(len(block))
            yield result


def checking_pool() -> ThreadPoolExecutor:
    """Threads that wait for a disk or a network file system, not for each other."""
    return ThreadPoolExecutor(max_workers=min(16, 4 * (os.cpu_count() or 1)))


def report_faults(faults: Sequence[str], total: int) -> None:
    """Raise the one error of all unusable images, if there are any.

    Raises:
        UserError: Their number and the first ones.
    """
    if faults:
        raise UserError(
            f"{len(faults)} of {total} images cannot be used: {first_of(faults)}. Copy them again from the source, "
            "or remove them (and their labels)."
        )


def first_of(names: Sequence[object]) -> str:
    """The first few of a list for a message."""
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def check_image_folder(root: str | Path) -> int:
    """List and check every image below ``root``.

    Returns:
        The number of images.

    Raises:
        UserError: As :func:`list_images` and :func:`check_image_files`.
    """
    paths = PackedPaths(image_names(root), root)
    check_image_files(paths)
    return len(paths)


def find_fault(path: str | Path) -> str:
    """What is wrong with one image file, or an empty string."""
    try:
        with open(path, "rb") as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            return find_encoded_fault(read, os.fstat(file.fileno()).st_size)
    except OSError as error:
        return error.strerror or str(error)


def find_encoded_fault(read: Callable[[int, int], bytes], size: int) -> str:
    """What is wrong with one encoded image, wherever it lies, or an empty string.

    Args:
        read: Gives the bytes at (offset, length).
        size: Bytes in all.
    """
    if size == 0:
        return "empty file"
    head, start = read(0, 12), max(0, size - TAIL_BYTES)
    tail = read(start, size - start)
    if head.startswith(b"\xff\xd8"):
        if tail.rstrip(b"\0").endswith(b"\xff\xd9"):
            return ""
        encoded = read(0, size)
        return _decoding_fault(encoded) if b"\xff\xd9" in encoded else "truncated JPEG: no end marker"
    if head.startswith(b"\x89PNG"):
        if PNG_END in tail:
            return ""
        encoded = read(0, size)
        return _decoding_fault(encoded) if PNG_END in encoded else "truncated PNG: no IEND chunk"
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        whole = int.from_bytes(head[4:8], "little") + 8 <= size
        return "" if whole else "truncated WebP: shorter than its header says"
    return _decoding_fault(read(0, size))


def _decoding_fault(encoded: bytes) -> str:
    """Decode it all; the error's text, or an empty string."""
    try:
        to_rgb(encoded)
    except Undecodable as error:
        return f"not decodable: {error}"
    return ""
