"""From encoded bytes to the RGB pixels that a person would see. Colour profiles are not applied, as in timm."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps, PngImagePlugin, PpmImagePlugin, TiffImagePlugin

from ..runtime.errors import UnusableImage

Reduction = Callable[[int, int], int]
TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
OPEN_STREAM = re.compile(r" ?<_io\.BytesIO object at \w+>")
# All that Pillow 10.1 and 13.0 raised on 100,000 truncated and altered files of 20 formats: TypeError for tags of TIFF,
# OverflowError for palettes, AttributeError where a palette is missing, struct.error for EXIF, RuntimeError for AVIF,
# NotImplementedError, which is one, for DDS. Only Pillow's own code runs under it.
READER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,
    struct.error,
)


class Undecodable(ValueError):
    """An image that Pillow's readers or :func:`to_rgb` refuse; the message says why.

    Args:
        why: The message.
        whole: The file is not damaged: another copy of it would not help.
    """

    def __init__(self, why: str, whole: bool = False) -> None:
        super().__init__(why)
        self.own_fault = why if whole else ""


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn what Pillow's readers raise on a damaged file into :class:`Undecodable`; all other errors pass."""
    try:
        yield
    except RecursionError:  # a RuntimeError that no file causes
        raise
    except Image.DecompressionBombError as error:
        why = str(error).partition(", could be")[0]  # a decompression bomb, says Pillow
        raise Undecodable(f"{why}: cut it up or make it smaller", whole=True) from error
    except READER_ERRORS as error:
        raise Undecodable(OPEN_STREAM.sub("", str(error)) or type(error).__name__) from error


def decode_rgb(encoded: bytes, name: str, reduction: Reduction | None = None) -> Image.Image:
    """Decode one image to RGB, see :func:`to_rgb`; UnusableImage names it where that is not possible."""
    try:
        return to_rgb(encoded, reduction)
    except Undecodable as error:
        raise UnusableImage(
            f"{name} cannot be decoded ({error}). Put a whole copy or another image under its name: a pretraining is "
            "resumed only with as many images as before."
        ) from error


def read_rgb(path: str | Path) -> Image.Image:
    """Decode an image file to RGB; UnusableImage names it where that is not possible."""
    try:
        encoded = Path(path).read_bytes()
    except OSError as error:
        raise UnusableImage(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    return decode_rgb(encoded, str(path))


def to_rgb(encoded: bytes, reduction: Reduction | None = None) -> Image.Image:
    """The first frame, upright, in 8-bit RGB.

    With ``reduction``, which is given the upright width and height, a JPEG is decoded smaller by the factor that it
    returns (1, 2, 4 or 8; sides are rounded up), which takes a fraction of the time.

    Transparent pixels show white: dropping the alpha channel, as ``convert("RGB")`` does, would show whatever lies
    hidden behind it. 16-bit (TIFF: also 12-bit) grey is scaled by its bit depth, which ``convert`` clips at 255.
    CMYK follows its file's polarity: in a JPEG with Adobe's marker 255 is no ink, in one without it 0 is.

    Raises:
        Undecodable: The file is damaged, or of 32-bit or float grey, which has no white.
    """
    with reading():
        image = Image.open(io.BytesIO(encoded))
    with image:
        factor = reduction(*_upright(image)) if reduction is not None else 1
        with reading():
            if factor > 1 and image.format == "JPEG":
                image.draft(None, (image.width // factor, image.height // factor))
            image.load()
            transparent = image.has_transparency_data
        with (
            contextlib.suppress(Undecodable),
            reading(),
        ):  # a broken EXIF block spoils no pixel: as it is stored
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "RGB" and "transparency" not in image.info:
            return image
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _deep_grey(image)
        if transparent:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
            return ImageChops.invert(image).convert("RGB")  # Pillow inverted it, with or without the marker
        return image.convert("RGB")


def _upright(image: Image.Image) -> tuple[int, int]:
    """(width, height) once it is turned."""
    width, height = image.size
    return (height, width) if orientation_of(image) >= 5 else (width, height)  # 5 to 8 lie on their side


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 2 to 8 where it is to be turned or mirrored, else 1."""
    tag = None
    with contextlib.suppress(Undecodable), reading():  # a broken EXIF block: as it is stored
        tag = image.getexif().get(ExifTags.Base.Orientation)
    return tag if isinstance(tag, int) and 2 <= tag <= 8 else 1


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 9 to 16 unsigned bits."""
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2[TIFF_BITS][0]
        inverted = image.tag_v2.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO
    # Pillow's mode "I" is 32 bits wide; PNG (older Pillow) and PGM put 16 into it
    unsigned = image.mode.startswith("I;16") or isinstance(
        image, PngImagePlugin.PngImageFile | PpmImagePlugin.PpmImageFile
    )
    if not unsigned:
        raise Undecodable(
            f"{image.mode}-mode grey of unknown range: save it with 8 or 16 unsigned bits", whole=True
        )
    values = np.asarray(image).astype(np.float32)
    if (transparent := image.info.get("transparency")) is not None:  # a PNG's one hidden value
        values[values == transparent] = 2**bits - 1
    values *= 255 / (2**bits - 1)
    grey = Image.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))
    return (ImageChops.invert(grey) if inverted else grey).convert("RGB")
