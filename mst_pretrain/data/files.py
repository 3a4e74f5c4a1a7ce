"""Finding image files and telling a whole one from a truncated one, before the first step."""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ..runtime.errors import UserError
from ..runtime.terminal import first_shown
from .decode import Undecodable, to_rgb
from .headers import header_size, other_kind, size_fault
from .suffixes import HIDDEN, IMAGE_SUFFIXES, OPENCV_SUFFIXES, SPECIAL, describe_left_out, suffix_of

DAMAGED = ("empty file", "truncated", "not decodable")  # faults that another copy of the file may not have
TAIL_BYTES = 1024
PNG_END = b"IEND\xaeB`\x82"
SHOWN = 3
BLOCK = 64  # files that one thread looks at in one go, where a look takes less time than handing it over
AHEAD = 4  # blocks per thread that are begun before their results are asked for

T = TypeVar("T")
R = TypeVar("R")


def list_images(root: str | Path, left_out: Counter[str] | None = None) -> list[Path]:
    """The images below ``root`` that OpenCV decodes, for mmdet and mmseg, as paths: see :func:`image_names`."""
    return [Path(root, name) for name in image_names(root, left_out, OPENCV_SUFFIXES)]


def image_names(
    root: str | Path, left_out: Counter[str] | None = None, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> Iterator[str]:
    """All image files below ``root``, by suffix in any case; hidden files and folders are left out.

    Links are followed; a folder that several of them lead to counts once.

    Args:
        root: The folder.
        left_out: Counts the files that are not images, by suffix.
        suffixes: Of images.

    Yields:
        Names relative to ``root`` in the order of sorted paths: the same on every machine.

    Raises:
        UserError: ``root`` is missing, is not a folder, or holds no image; or a folder below it cannot be listed.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"Image folder {root} does not exist. Check the path, or put the images there.")
    if not root.is_dir():
        raise UserError(
            f"{root} is a file, but a folder of images is expected. Give the folder that holds it."
        )
    others: Counter[str] = Counter() if left_out is None else left_out
    names = images_below(root, others, suffixes)
    first = next(names, None)
    if first is None:
        held = describe_left_out(others)
        found = f"; it holds {held}" if held else ""
        raise UserError(
            f"Image folder {root} holds no image (.jpg .png .webp .tif ..., any depth){found}. Check the path."
        )
    yield first
    yield from names


def holds_image(root: str | Path) -> bool:
    """Whether there is an image below a folder; stops at the first."""
    return next(images_below(root), None) is not None


def images_below(
    root: str | Path, left_out: Counter[str] | None = None, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> Iterator[str]:
    """As :func:`image_names`, but a folder without an image yields nothing."""
    others: Counter[str] = Counter() if left_out is None else left_out
    return _walk(str(root), "", {os.path.realpath(root)}, others, suffixes)


def _walk(
    root: str, below: str, seen: set[str], left_out: Counter[str], suffixes: tuple[str, ...]
) -> Iterator[str]:
    """Images below ``root/below``; every folder is sorted by itself, so no list of all names is needed."""
    images: list[str] = []
    folders: list[str] = []
    here = os.path.join(root, below)
    try:
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    left_out[HIDDEN] += not _is_folder(entry)
                elif _is_folder(entry):
                    folders.append(entry.name)
                elif entry.name.lower().endswith(suffixes):
                    if (
                        entry.is_symlink() or entry.is_file()
                    ):  # what a link leads to is looked at with the image
                        images.append(entry.name)
                    else:
                        left_out[SPECIAL] += 1
                else:
                    left_out[suffix_of(entry.name)] += 1
    except OSError as error:
        raise unlistable(here, error) from error
    to_visit = set()
    for folder in sorted(folders):
        target = os.path.realpath(os.path.join(root, below, folder))
        if target not in seen:
            seen.add(target)
            to_visit.add(folder)
    for name in sorted([*images, *to_visit]):
        if name in to_visit:
            yield from _walk(root, f"{below}{name}{os.sep}", seen, left_out, suffixes)
        else:
            yield below + name


def unlistable(folder: str | Path, error: OSError) -> UserError:
    """What to say of a folder that cannot be listed."""
    return UserError(
        f"Folder {folder} cannot be listed ({error.strerror or error}), so that its images would be left out. Allow "
        "yourself to read it (chmod u+rx), or move it out of the images."
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def visible(names: Iterable[str]) -> list[str]:
    """Those of the names that do not start with a dot: no ``.thumbs``, ``.ipynb_checkpoints`` or ``.git``."""
    return [name for name in names if not name.startswith(".")]


def in_threads(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None, block: int = 1
) -> Generator[R, None, None]:
    """``function`` of each item, in order, in threads that wait for a disk or a network file system.

    Only some blocks are under way at a time, so neither a million results nor large ones fill the memory. Close the
    generator when stopping early: what waits is dropped then.

    Args:
        function: Called in several threads at a time.
        items: Its arguments.
        workers: Threads; None: four per core, at most 16.
        block: Items that a thread takes at a time.
    """
    workers = workers or min(16, 4 * (os.cpu_count() or 1))
    waiting: deque[Future[list[R]]] = deque()
    remaining = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        try:
            while some := list(islice(remaining, block)):
                waiting.append(pool.submit(lambda some: [function(item) for item in some], some))
                if len(waiting) >= AHEAD * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def report_faults(faults: Sequence[tuple[str, str]], total: int) -> None:
    """Raise the one UserError of all unusable images, if there are any.

    Args:
        faults: Name and fault of each.
        total: Images in all.
    """
    if not faults:
        return
    kinds = {is_damage(fault) for _, fault in faults}
    remedies = {True: "Copy them again from the source", False: "Do what is said of each"}
    both = "Copy the damaged ones again from the source, do what is said of the others"
    raise UserError(
        f"{len(faults)} of {total} images cannot be used: {first_of([f'{name} ({fault})' for name, fault in faults])}. "
        f"{both if len(kinds) > 1 else remedies[kinds.pop()]}, or remove them (and their labels); mst pretrain "
        "and mst finetune leave them out with --skip-broken."
    )


def is_damage(fault: str) -> bool:
    """Whether a fault of :func:`find_encoded_fault` is one that another copy of the file may not have."""
    return fault.startswith(DAMAGED)


def first_of(names: Sequence[object]) -> str:
    """The first few of a list for a message."""
    return first_shown(names, SHOWN)


def find_fault(path: str | Path) -> str:
    """What is wrong with one image file, or an empty string."""
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe may last forever
            return "a pipe, a socket or a device, not a regular file: remove it"
        with open(path, "rb") as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            return find_encoded_fault(read, os.fstat(file.fileno()).st_size)
    except OSError as error:
        return error.strerror or str(error)


def find_encoded_fault(read: Callable[[int, int], bytes], size: int) -> str:
    """What is wrong with one encoded image, wherever it lies, or an empty string; decodes only where it must.

    A JPEG must have its end marker, a PNG its IEND chunk, a WebP must be as long as its header says.
    One with more behind its end (a phone adds a film to a photograph), and every other format, is decoded whole. None
    may have more pixels than Pillow decodes, or be one pixel thin.

    Args:
        read: Gives the bytes at (offset, length).
        size: Bytes in all.
    """
    if size == 0:
        return "empty file"
    if measured := header_size(read):
        fault = size_fault(*measured)
        if fault:
            return fault
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
        image = to_rgb(encoded)
    except Undecodable as error:
        return error.own_fault or other_kind(encoded[:512]) or f"not decodable: {error}"
    return size_fault(*image.size)
