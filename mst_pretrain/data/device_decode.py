"""JPEGs decoded by a device, and which of them it is given: all others go the CPU's way (decode.py)."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from .decode import Undecodable, orientation_of, reading

END_OF_IMAGE = b"\xff\xd9"
# Since torchvision 0.29; torchcodec, its successor, needs torch 2.11, and 2.6 is still supported here
warnings.filterwarnings("ignore", message=r"[\s\S]*deprecated[\s\S]*torchcodec", module="torchvision")


class Header(NamedTuple):
    """(width, height) of the upright image, and EXIF's orientation, 1 to 8."""

    size: tuple[int, int]
    orientation: int


def jpeg_for_device(encoded: bytes) -> Header | None:
    """What is known of a JPEG before it is decoded; None where a device would not decode it as the CPU does.

    Those are other formats, JPEGs of other colours than gray and YCbCr, and truncated ones, which a device fills up.
    """
    if not encoded.rstrip(b"\0").endswith(END_OF_IMAGE):
        return None
    try:
        with reading(), Image.open(io.BytesIO(encoded)) as image:
            stored_as_rgb = image.mode == "RGB" and image.info.get("adobe_transform") == 0
            if image.format != "JPEG" or image.mode not in ("RGB", "L") or stored_as_rgb:
                return None
            orientation = orientation_of(image)
            return Header(image.size[::-1] if orientation >= 5 else image.size, orientation)
    except Undecodable:
        return None


def decode_jpegs(encoded: list[Tensor], device: torch.device) -> list[Tensor | None]:
    """[3, H, W] uint8 of each on the device, as stored; None for those that it cannot decode.

    The one place that knows a decoder: nvJPEG on a GPU, libjpeg on a CPU, both by torchvision.

    Args:
        encoded: [bytes] uint8 on the CPU.
        device: A GPU, or the CPU.
    """
    try:
        return list(decode_jpeg(encoded, ImageReadMode.RGB, device)) if encoded else []
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # of one of them
        if len(encoded) == 1:
            return [None]
        return [decode_jpegs([one], device)[0] for one in encoded]


def can_decode(device: torch.device) -> bool:
    """Whether a device decodes a JPEG that nothing is wrong with."""
    encoded = io.BytesIO()
    Image.new("RGB", (16, 16)).save(encoded, "JPEG")
    content = torch.frombuffer(bytearray(encoded.getvalue()), dtype=torch.uint8)
    (decoded,) = decode_jpegs([content], device)
    return decoded is not None


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn or mirror [3, H, W] as EXIF's orientation asks for."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 2)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    axes = [axis for axis, mirrored in ((1, rows), (2, columns)) if mirrored]
    return pixels.flip(axes) if axes else pixels
