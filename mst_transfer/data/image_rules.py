"""Rules of images by themselves: what their headers say, and whether two splits have the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

from mst_pretrain.data.decode import orientation_of

from .problems import Problem

Facts = list[int]
TAG, TURNED, DEEP = 2, 3, 4  # among the facts of an image
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
LOOKED_AT = 16  # images of 16 bits that are decoded
DARK = (1 << 16) // 8
MIDDLE = 1 << 16  # bytes by which files of one name and size are compared
NOT_TURNED = ("WEBP",)  # OpenCV turns JPEG, PNG and TIFF by their tag, and these not


def image_header(path: Path) -> Facts:
    """What the header of an image says.

    Returns:
        Width and height as OpenCV loads it in training; the EXIF orientation, 1 where it is not to be turned; whether
        OpenCV turns it by that; whether it has 16 bits a channel.
    """
    with Image.open(path) as image:
        is_deep = ";16" in str(image.tile)  # before the tag is read, for which Pillow may load the pixels
        tag, turned = orientation_of(image), image.format not in NOT_TURNED
        size = image.size
        if isinstance(
            image, TiffImageFile
        ):  # whose size is of the upright picture in some versions of Pillow
            size = image.tag_v2[Base.ImageWidth], image.tag_v2[Base.ImageLength]
        if turned and tag in SIDEWAYS:
            size = size[::-1]
        return [*size, tag, int(turned), int(is_deep)]


def tag_problems(images: Sequence[Path], facts: Mapping[Path, Facts], what: str) -> Iterator[Problem]:
    """Whether ``what`` was drawn on the pictures as they are loaded cannot be told where a tag turns them.

    Args:
        images: Those of the split.
        facts: Of each image that was read.
        what: What belongs to the images, e.g. "label maps".
    """
    tagged = [path for path in images if path in facts and facts[path][TAG] != 1]
    turned = [path for path in tagged if facts[path][TURNED]]
    others = [path for path in tagged if not facts[path][TURNED]]
    if turned:
        said = f"{len(turned)} of {len(images)} images are turned or mirrored by their EXIF tag"
        drawn = f"first {turned[0].name}: {what} are taken as of the upright pictures"
        yield Problem("turned", turned[0].parent, f"{said}, {drawn}")
    if others:
        said = f"{len(others)} of {len(images)} images have an EXIF tag that OpenCV does not follow in WebP"
        drawn = f"first {others[0].name}: {what} are taken as of the pixels as stored"
        yield Problem("not turned", others[0].parent, f"{said}, {drawn}")


def dark_problems(images: Sequence[Path], facts: Mapping[Path, Facts]) -> Iterator[Problem]:
    """Of 16 bits training takes the upper 8, in which images of 12 bits have next to nothing; a few are decoded."""
    deep = [path for path in images if path in facts and facts[path][DEEP]]
    looked = deep[:: len(deep) // LOOKED_AT + 1]
    loaded = [cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) for path in looked]
    largest = max((int(pixels.max()) for pixels in loaded if pixels is not None), default=DARK)
    if largest < DARK:
        what = f"{len(deep)} of {len(images)} images have 16 bits, first {deep[0].name}"
        dark = f"their values reach {largest} of 65535 ({len(looked)} looked at), and training takes the upper 8 bits"
        yield Problem("dark", deep[0].parent, f"{what}: {dark}, at most {largest >> 8} of 255, nearly black")


def shared_images(train: Sequence[Path], val: Sequence[Path]) -> Iterator[Problem]:
    """Images of one name, size in bytes and content in both: one file, a link to it, or a copy."""
    of_train, of_val = list(train), list(val)
    for key in (
        _name,
        _with_size,
        _with_middle,
    ):  # each is dearer than the one before, and has fewer to look at
        keys_train, keys_val = ([key(path) for path in paths] for paths in (of_train, of_val))
        both = {*keys_train} & {*keys_val}
        of_train = [path for path, own in zip(of_train, keys_train, strict=True) if own in both]
        of_val = [path for path, own in zip(of_val, keys_val, strict=True) if own in both]
    if of_val:
        what = f"{len(of_val)} of {len(val)} images of val are also in train, first {of_val[0].name}"
        yield Problem("shared images", of_val[0].parent, what)


def _name(path: Path) -> object:
    return path.name


def _with_size(path: Path) -> object:
    return path.name, path.stat().st_size if path.is_file() else path


def _with_middle(path: Path) -> object:
    """With the bytes from the middle on, where files of one size differ if they do."""
    if not path.is_file():
        return path
    with open(path, "rb") as file:
        file.seek(path.stat().st_size // 2)
        return path.name, path.stat().st_size, sha256(file.read(MIDDLE)).digest()


def size_said(facts: Facts) -> str:
    """Height x width of an image as it is loaded, and what its tag has to do with it."""
    width, height, tag, turned = facts[:4]
    size = f"{height}x{width}"
    if tag not in SIDEWAYS:
        return size
    return (
        f"{size}, stored as {width}x{height} and turned by its EXIF tag"
        if turned
        else f"{size}, as OpenCV does not follow its EXIF tag"
    )


def remedy_of_tag(facts: Facts, other: Facts, what: str) -> str:
    """What to do where an image and ``what`` belongs to it have height and width exchanged, and a tag explains that."""
    if facts[TAG] not in SIDEWAYS or facts[:2] != other[1::-1]:
        return ""
    if facts[TURNED]:
        return (
            f"Draw {what} on the upright pictures; or, if the pictures are right as they are stored, remove the tags: "
            "exiftool -Orientation= FOLDER"
        )
    return "Write the images anew, upright and without the tag."
