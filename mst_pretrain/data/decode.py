"""From encoded bytes to the RGB pixels that a person would see. Colour profiles are not applied, as in timm."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps, PngImagePlugin, PpmImagePlugin, TiffImagePlugin

from ..errors import UserError

TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
OPEN_STREAM = re.compile(r" ?<_io\.BytesIO object at \w+>")


def decode_rgb(encoded: bytes, name: str) -> Image.Image:
    """Decode one image to RGB, see :func:`to_rgb`.

    Args:
        encoded: The whole file.
        name: For the error message.

    Raises:
        UserError: It cannot be decoded.
    """
    try:
        return to_rgb(encoded)
    except Exception as error:  # Pillow's readers raise many types on broken files
        raise UserError(
            f"{name} cannot be decoded ({reason(error)}). Copy it again, or put another image under "
            "its name: a pretraining is resumed only with as many images as before."
        ) from error


def read_rgb(path: str | Path) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        UserError: The file cannot be read or decoded.
    """
    try:
        encoded = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    return decode_rgb(encoded, str(path))


def to_rgb(encoded: bytes) -> Image.Image:
    """The first frame, upright, in 8-bit RGB.

    Transparent pixels show white: dropping the alpha channel, as ``convert("RGB")`` does, would show whatever lies
    hidden behind it. 16-bit (TIFF: also 12-bit) grey is scaled by its bit depth, which ``convert`` clips at 255.
    CMYK follows its file's polarity: in a JPEG with Adobe's marker 255 is no ink, in one without it 0 is.

    Raises:
        ValueError: 32-bit or float grey, which has no white; other types from Pillow's readers.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        with contextlib.suppress(Exception):  # a broken EXIF block spoils no pixel: as it is stored
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "RGB" and "transparency" not in image.info:
            return image
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _deep_grey(image)
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
            return ImageChops.invert(image).convert("RGB")  # Pillow inverted it, with or without the marker
        return image.convert("RGB")


def upright_size(path: str | Path) -> tuple[int, int]:
    """(width, height) that :func:`to_rgb` gives, and OpenCV in training, from the header alone."""
    with Image.open(path) as image:
        sideways = False
        with contextlib.suppress(Exception):  # a broken EXIF block: as it is stored
            sideways = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
        return image.size[::-1] if sideways else image.size


def reason(error: Exception) -> str:
    """An error's text without the name of the stream that it was read from."""
    return OPEN_STREAM.sub("", str(error)) or type(error).__name__


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 9 to 16 unsigned bits."""
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2[TIFF_BITS][0]
        inverted = image.tag_v2[TIFF_PHOTOMETRIC] == WHITE_IS_ZERO
    # Pillow's mode "I" is 32 bits wide; PNG (older Pillow) and PGM put 16 into it
    unsigned = image.mode.startswith("I;16") or isinstance(
        image, PngImagePlugin.PngImageFile | PpmImagePlugin.PpmImageFile
    )
    if not unsigned:
        raise ValueError(f"{image.mode}-mode grey of unknown range; save it with 8 or 16 unsigned bits")
    values = np.asarray(image).astype(np.float32)
    if (transparent := image.info.get("transparency")) is not None:  # a PNG's one hidden value
        values[values == transparent] = 2**bits - 1
    values *= 255 / (2**bits - 1)
    grey = Image.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))
    return (ImageChops.invert(grey) if inverted else grey).convert("RGB")
