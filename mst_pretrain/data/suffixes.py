"""Which files are images, told by their suffix, and why the others of a folder are left out."""

from __future__ import annotations

import os
from collections import Counter
from importlib.util import find_spec

from PIL import Image

from ..runtime.terminal import shown

if find_spec("pillow_heif") is not None:  # the extra [heic]
    import pillow_heif

    pillow_heif.register_heif_opener()

FORMER = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # all that were read up to version 0.1
# Formats that Pillow registers but that do not count as pictures: Pillow cannot decode them by itself, they are films,
# or most files of that suffix hold other data (.pcd point clouds, .fit tracks and tables)
NOT_PICTURES = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS", "IPTC", "FLI", "PCD", "FITS")
# They stand for a suffix: images with a dot before the name, beside class folders, beside a sample's image in a shard,
# pipes, sockets and devices under the names of images
HIDDEN, OUTSIDE, BESIDE, SPECIAL = NO_SUFFIXES = ("hidden", "outside", "beside", "special")
PICTURES = {  # why they are not read
    "read with: pip install 'mst-toolkit[heic]'": (".heic", ".heif", ".hif", ".heics", ".heifs"),
    "read by Pillow 11.3 and newer": (".avif", ".avifs"),
    "camera raw: convert to TIFF": (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"),
    "of other formats: convert to PNG": (
        ".jxl",
        ".svg",
        ".pdf",
        ".eps",
        ".ps",
        ".exr",
        ".hdr",
        ".dcm",
        ".fits",
    ),
}
REASONS = {
    "hidden": (HIDDEN,),
    "not in a class folder": (OUTSIDE,),
    "beside the image of their sample": (BESIDE,),
    "pipes, sockets or devices, not regular files": (SPECIAL,),
    **PICTURES,
    "films: save their frames": (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"),
    "archives: unpack": (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2", ".zst"),
}
SHOWN = 4  # suffixes of a kind


def _of_pillow() -> tuple[str, ...]:
    """The former suffixes, then every other one of a format of still pictures that Pillow reads here."""
    Image.init()
    readable = {*Image.OPEN, "MPO"} - {*NOT_PICTURES}  # an MPO is opened as the JPEG that it begins with
    found = {suffix for suffix, kind in Image.registered_extensions().items() if kind in readable}
    return (*FORMER, *sorted(found.difference(FORMER)))


IMAGE_SUFFIXES = _of_pillow()
# Of these, what every OpenCV decodes, by which mmdet and mmseg load images
OPENCV_SUFFIXES = (*FORMER, ".jfif", ".jpe", ".jp2", ".pbm", ".pgm", ".pnm", ".ppm")


def suffix_of(name: str) -> str:
    """Of a file name, in lower case, with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()


def why_not(suffix: str) -> str:
    """Why a file is left out, or what reads it."""
    if suffix in IMAGE_SUFFIXES:
        return "not read by OpenCV: convert to PNG"
    return next((why for why, suffixes in REASONS.items() if suffix in suffixes), "not images")


def describe_left_out(left_out: Counter[str]) -> str:
    """What was left out, by reason and suffix.

    Args:
        left_out: Files by suffix.

    Returns:
        For example ``40 .heic (read with: ...), 2 .txt 1 .md (not images)``; empty where nothing was left out.
    """
    groups: dict[str, list[str]] = {}
    for suffix, count in sorted((+left_out).items(), key=lambda item: (-item[1], item[0])):
        what = "" if suffix in NO_SUFFIXES else f" {shown(suffix)}" if suffix else " without a suffix"
        groups.setdefault(why_not(suffix), []).append(f"{count}{what}")
    parts = []
    for why, counts in groups.items():
        more = f" and {len(counts) - SHOWN} more suffixes" if len(counts) > SHOWN else ""
        parts.append(f"{' '.join(counts[:SHOWN])}{more} ({why})")
    return ", ".join(parts)


def pictures(left_out: Counter[str]) -> int:
    """How many of the files left out are pictures all the same, in formats that are not read."""
    return sum(
        count
        for suffix, count in left_out.items()
        if suffix in IMAGE_SUFFIXES or any(suffix in formats for formats in PICTURES.values())
    )


def say_left_out(spec: str, used: int, left_out: Counter[str]) -> None:
    """Print what a source does not use of what it was given, once; nothing where that is nothing."""
    if (others := describe_left_out(left_out)) and os.environ.get("RANK", "0") == "0":
        print(f"{spec}: {used} images; left out: {others}", flush=True)
