"""Width and height from the first bytes of an encoded image, and what a file is that is not an image."""

from __future__ import annotations

import re
from collections.abc import Callable

from PIL import Image

THINNEST = 2  # pixels: a thinner picture shows nothing, and resizing its short side makes it endlessly long
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
# What is found under the names of images, by its first bytes
OTHER_KINDS = (
    (rb"\s*<(!doctype html|html|head|\?xml.{0,300}<html)", "a web page: download the file itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS: git lfs pull"),
    (rb"\s*(<\?xml.{0,300})?<svg", "an SVG drawing: convert it to PNG"),
    (rb"%PDF", "a PDF: convert it to PNG"),
    (rb"....ftyp(" + b"|".join(HEIC_BRANDS) + rb")", "a HEIC picture: pip install 'mst-toolkit[heic]'"),
    (rb"....ftypavif", "an AVIF picture: pip install 'pillow>=11.3'"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a film: save its frames"),
    (rb"\xff\x0a|....JXL ", "a JPEG XL picture: convert it to PNG"),
    (rb"\x1f\x8b", "compressed with gzip: unpack it"),
    (rb"PK\x03\x04|Rar!|7z\xbc\xaf", "an archive: unpack it"),
)

Read = Callable[[int, int], bytes]


def other_kind(head: bytes) -> str:
    """What a file is that begins like this and is not an image, with what to do; empty where that is unknown."""
    found = (what for pattern, what in OTHER_KINDS if re.match(pattern, head, re.IGNORECASE | re.DOTALL))
    return next(found, "")


def size_fault(width: int, height: int) -> str:
    """Why no picture of this size can be used, or an empty string. Pillow's own limit counts, also a raised one."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # from twice its constant on Pillow raises an error
    if limit and width * height > limit:
        return f"{width}x{height} pixels, and Pillow decodes at most {limit:,}: cut it up or make it smaller"
    if min(width, height) < THINNEST:
        return f"{width}x{height} pixels: one pixel thin, it shows nothing"
    return ""


def header_size(read: Read) -> tuple[int, int] | None:
    """(width, height) as a JPEG, PNG or WebP stores them; None for other files and for damaged headers.

    Args:
        read: Gives the bytes at (offset, length).
    """
    head = read(0, 30)
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(b"\xff\xd8"):
        return _jpeg_size(read)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) == 30:
        return _webp_size(head)
    return None


def _jpeg_size(read: Read) -> tuple[int, int] | None:
    """From the frame header, behind any number of other segments."""
    offset = 2
    while len(segment := read(offset, 9)) == 9 and segment[0] == 0xFF and segment[1] != 0xDA:
        kind = segment[1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
        if kind == 0xFF:  # a filling byte
            offset += 1
        elif kind == 0x01 or 0xD0 <= kind <= 0xD8:  # markers without a length
            offset += 2
        else:
            offset += 2 + int.from_bytes(segment[2:4], "big")
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if head[12:16] == b"VP8 ":
        size = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return next(size), next(size)
    return None
