"""From encoded bytes to RGB pixels."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from ..errors import UserError


def decode_rgb(encoded: bytes, name: str) -> Image.Image:
    """Decode one image to RGB.

    Args:
        encoded: The whole file.
        name: For the error message.

    Raises:
        UserError: It cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{name} cannot be decoded ({error}). Remove the file or copy it again.") from error


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
