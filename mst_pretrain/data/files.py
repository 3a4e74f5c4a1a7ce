"""Finding image files and telling a whole one from a truncated one, before the first step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import UserError
from .decode import Undecodable, to_rgb

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
TAIL_BYTES = 1024
PNG_END = b"IEND\xaeB`\x82"
SHOWN = 3


def list_images(root: str | Path) -> list[Path]:
    """All image files below ``root``, by suffix in any case; hidden files and folders are left out.

    Links are followed; a folder that several of them lead to counts once.

    Returns:
        Paths in sorted order: the same on every machine.

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
    paths: list[Path] = []
    seen = {os.path.realpath(root)}
    for folder, children, names in os.walk(root, followlinks=True):
        to_visit = []
        for child in sorted(visible(children)):
            target = os.path.realpath(os.path.join(folder, child))
            if target not in seen:
                seen.add(target)
                to_visit.append(child)
        children[:] = to_visit
        paths += [Path(folder, name) for name in visible(names) if name.lower().endswith(IMAGE_SUFFIXES)]
    if not paths:
        wanted = " ".join(IMAGE_SUFFIXES)
        raise UserError(f"Image folder {root} holds no image ({wanted}, any depth). Check the path.")
    return sorted(paths)


def visible(names: Iterable[str]) -> list[str]:
    """Those of the names that do not start with a dot: no ``.thumbs``, ``.ipynb_checkpoints`` or ``.git``."""
    return [name for name in names if not name.startswith(".")]


def check_image_files(paths: Sequence[Path]) -> None:
    """Look at the head and tail bytes of every file; decode only where these cannot tell.

    A JPEG must have its end marker, a PNG its IEND chunk, a WebP must be as long as its header says.
    One with more behind its end (a phone adds a film to a photograph), and every other format, is decoded whole.

    Raises:
        UserError: Some files are missing, empty, truncated, or not images: their number and the first names.
    """
    with checking_pool() as pool:
        faults = [
            f"{path} ({fault})"
            for path, fault in zip(paths, pool.map(find_fault, paths), strict=True)
            if fault
        ]
    report_faults(faults, len(paths))


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
    paths = list_images(root)
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
