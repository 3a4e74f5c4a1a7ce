"""Files of every mode come out as the picture a person sees."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.data.decode import decode_rgb
from mst_pretrain.errors import UserError

RED, GREEN, BLUE, GREY = (250, 5, 5), (5, 240, 5), (5, 5, 230), (90, 90, 90)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def corners() -> Image.Image:
    """48 x 32: red, green above blue, grey."""
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = RED, GREEN, BLUE, GREY
    return Image.fromarray(pixels)


def seen(encoded: bytes) -> list[tuple[int, ...]]:
    """Colours of the four corners, left to right, top to bottom."""
    image = decode_rgb(encoded, "x")
    assert image.mode == "RGB"
    width, height = image.size
    return [
        image.getpixel((x, y))  # type: ignore[misc]
        for y in (4, height - 5)
        for x in (4, width - 5)
    ]


def assert_near(got: list[tuple[int, ...]], expected: list[tuple[int, ...]], tolerance: int) -> None:
    assert np.abs(np.array(got) - np.array(expected)).max() <= tolerance, got


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("WEBP", 12), ("JPEG", 12)]
)
def test_plain_rgb(kind: str, tolerance: int) -> None:
    """A format would be read with channels swapped or rows upside down."""
    assert_near(seen(encode(corners(), kind)), [RED, GREEN, BLUE, GREY], tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photos_come_out_upright(orientation: int) -> None:
    """Photos of a phone would lie on their side."""
    stored: dict[int, list[Image.Transpose]] = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    image = corners()
    for step in stored[orientation]:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(image, "JPEG", exif=exif, quality=95)
    assert decode_rgb(encoded, "x").size == (48, 32)
    assert_near(seen(encoded), [RED, GREEN, BLUE, GREY], 15)


def test_transparent_pixels_are_white() -> None:
    """The colour hidden behind transparent pixels would become part of the picture."""
    rgba = corners().convert("RGBA")
    alpha = np.full((32, 48), 255, dtype=np.uint8)
    alpha[:16, 24:], alpha[16:, :24] = 0, 128
    rgba.putalpha(Image.fromarray(alpha))
    half = tuple(round(value * 128 / 255 + 127) for value in BLUE)
    for kind in ("PNG", "TIFF"):
        assert_near(seen(encode(rgba, kind)), [RED, (255, 255, 255), half, GREY], 1)
    grey = Image.fromarray(np.full((32, 48), 40, dtype=np.uint8)).convert("LA")
    grey.putalpha(Image.fromarray(alpha))
    mixed = (round(40 * 128 / 255 + 127),) * 3
    assert_near(seen(encode(grey, "PNG")), [(40,) * 3, (255,) * 3, mixed, (40,) * 3], 1)


def test_palette_with_and_without_transparency() -> None:
    """A palette's indices would be taken for grey values, or its transparent entry keep its colour."""
    palette = corners().quantize(8)
    assert palette.mode == "P"
    assert_near(seen(encode(palette, "PNG")), [RED, GREEN, BLUE, GREY], 6)
    index = palette.getpixel((40, 4))
    shown = seen(encode(palette, "PNG", transparency=index))
    assert_near(shown, [RED, (255, 255, 255), BLUE, GREY], 6)
    keyed = encode(corners(), "PNG", transparency=RED)
    assert_near(seen(keyed), [(255, 255, 255), GREEN, BLUE, GREY], 0)


def test_grey_and_one_bit() -> None:
    """A greyscale photo would be refused, or come out with one channel."""
    grey = corners().convert("L")
    expected = [(value,) * 3 for value in (grey.getpixel(p) for p in ((4, 4), (43, 4), (4, 27), (43, 27)))]
    assert_near(seen(encode(grey, "PNG")), expected, 0)  # type: ignore[arg-type]
    black = Image.fromarray(np.tile(np.arange(48) < 24, (32, 1)))
    assert_near(seen(encode(black, "PNG")), [(255,) * 3, (0,) * 3] * 2, 0)


def test_sixteen_bits_are_scaled_by_their_range() -> None:
    """A 16-bit photo would be clipped to white, or turn black."""
    values = np.zeros((32, 48), dtype=np.uint16)
    values[:16, :24], values[:16, 24:], values[16:, :24], values[16:, 24:] = 0, 65535, 257 * 100, 257 * 30
    expected = [(0,) * 3, (255,) * 3, (100,) * 3, (30,) * 3]
    for kind in ("PNG", "TIFF"):
        assert_near(seen(encode(Image.fromarray(values), kind)), expected, 0)


def test_cmyk() -> None:
    """A print JPEG would come out as its negative."""
    assert_near(seen(encode(corners().convert("CMYK"), "JPEG", quality=95)), [RED, GREEN, BLUE, GREY], 15)
    assert_near(seen(encode(corners().convert("CMYK"), "TIFF")), [RED, GREEN, BLUE, GREY], 2)


def test_what_cannot_be_shown_is_refused() -> None:
    """Floating-point or broken files would become a grey picture, or a traceback of the decoder's."""
    floats = encode(Image.fromarray(np.random.default_rng(0).random((8, 8), dtype=np.float32)), "TIFF")
    with pytest.raises(UserError, match=r"^x cannot be decoded \(floating-point"):
        decode_rgb(floats, "x")
    with pytest.raises(UserError, match=r"^x cannot be decoded"):
        decode_rgb(encode(corners(), "PNG")[:60], "x")
    with pytest.raises(UserError, match=r"^x cannot be decoded"):
        decode_rgb(b"no image", "x")
