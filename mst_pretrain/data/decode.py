"""From encoded bytes to RGB pixels, whatever the file's mode."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError

ORIENTATION = 0x0112  # EXIF tag


def decode_rgb(encoded: bytes, name: str) -> Image.Image:
    """Decode one image to upright RGB.

    Greyscale, palette and CMYK become RGB; transparent pixels become white, not the colour hidden behind them;
    16-bit greyscale is scaled by its whole range; an EXIF rotation is carried out.

    Args:
        encoded: The whole file.
        name: For the error message.

    Raises:
        UserError: It cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            if image.getexif().get(ORIENTATION, 1) != 1:
                return _to_rgb(ImageOps.exif_transpose(image))
            return _to_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} cannot be decoded ({error}). Remove the file or copy it again.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit integer pixels; save 8 or 16 bits")
        return Image.fromarray((values / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels; save 8 or 16 bits")
    return image.convert("RGB")


def read_rgb(path: str | Path) -> Image.Image:
    """Decode an image file to upright RGB, see :func:`decode_rgb`.

    Raises:
        UserError: The file cannot be read or decoded.
    """
    try:
        encoded = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    return decode_rgb(encoded, str(path))
