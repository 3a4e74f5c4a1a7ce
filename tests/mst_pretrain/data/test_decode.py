"""Every kind of image file becomes the RGB pixels that a person would see."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.data.decode import decode_rgb, to_rgb
from mst_pretrain.runtime.errors import UserError

Pixel = tuple[int, int, int]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode_rgb(data, "test")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def png(width: int, height: int, bits: int, color_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand, so that the expected values do not come from the library under test."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


def tiff(
    values: bytes, width: int, bits: int, photometric: int, order: str = "<", sample_format: int = 1
) -> bytes:
    """A TIFF of one row, one sample a pixel, written by hand."""
    entries = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    entries += [(278, 1), (279, len(values)), (339, sample_format)]
    padded = values + b"\0" * (len(values) % 2)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(padded))
    fields = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    return head + padded + struct.pack(f"{order}H", len(entries)) + fields + struct.pack(f"{order}I", 0)


def gradient() -> Image.Image:
    rows, columns = np.mgrid[:16, :24]
    return Image.fromarray(np.stack([rows * 15, columns * 10, 255 - rows * 8], 2).astype(np.uint8))


def test_rgb_and_grey_are_what_was_written() -> None:
    """Plain images would lose their values, or a palette's indices be taken for colours."""
    image = gradient()
    assert np.array_equal(pixels(encoded(image, "PNG")), np.asarray(image))
    grey = image.convert("L")
    assert np.array_equal(pixels(encoded(grey, "PNG")), np.asarray(grey)[..., None].repeat(3, 2))
    assert np.array_equal(
        pixels(encoded(grey.convert("1"), "PNG"))[..., 0], np.asarray(grey.convert("1")) * 255
    )
    palette = image.quantize(64)
    assert np.array_equal(pixels(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    jpeg = pixels(encoded(image, "JPEG", quality=95))
    assert np.abs(jpeg - np.asarray(image)).mean() < 3


@pytest.mark.parametrize(
    ("alpha", "expected"), [(255, (200, 10, 60)), (0, (255, 255, 255)), (51, (244, 206, 216))]
)
def test_transparency_shows_white(alpha: int, expected: Pixel) -> None:
    """A network would see colours hidden behind transparent pixels, or all logos on black."""
    image = Image.new("RGBA", (4, 3), (200, 10, 60, alpha))
    for kind in ("PNG", "WEBP", "TIFF"):
        data = encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
        assert np.abs(pixels(data) - expected).max() <= 1


def test_other_transparencies_show_white() -> None:
    """The transparent colour of a palette, of RGB or of grey would show its hidden value."""
    rgb = Image.new("RGB", (2, 1), (9, 8, 7))
    rgb.putpixel((1, 0), (50, 60, 70))
    expected = [[[255, 255, 255], [50, 60, 70]]]
    assert pixels(encoded(rgb, "PNG", transparency=(9, 8, 7))).tolist() == expected
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 8, 7, 50, 60, 70])
    palette.putpixel((1, 0), 1)
    assert pixels(encoded(palette, "PNG", transparency=0)).tolist() == expected
    assert pixels(encoded(palette, "GIF", transparency=0)).tolist() == expected
    grey = Image.new("LA", (2, 1), (40, 0))
    grey.putpixel((1, 0), (70, 255))
    assert pixels(encoded(grey, "PNG")).tolist() == [[[255] * 3, [70] * 3]]


DEEP = [0, 255, 256, 4096, 32768, 65535]
SCALED = [round(value / 257) for value in DEEP]


@pytest.mark.parametrize(
    "data",
    [
        png(6, 1, 16, 0, b"\0" + struct.pack(">6H", *DEEP)),
        tiff(struct.pack("<6H", *DEEP), 6, 16, 1),
        tiff(struct.pack(">6H", *DEEP), 6, 16, 1, ">"),
        tiff(struct.pack("<6H", *[65535 - value for value in DEEP]), 6, 16, 0),
    ],
    ids=["png", "tiff-little-endian", "tiff-big-endian", "tiff-white-is-zero"],
)
def test_16_bit_grey_is_scaled(data: bytes) -> None:
    """Microscopy, depth and X-ray images would be white but for their darkest 255 steps, or negatives."""
    assert pixels(data)[0].tolist() == [[value] * 3 for value in SCALED]


def test_transparent_value_of_16_bit_grey_shows_white() -> None:
    """The hidden value of a scan would be seen, or others that share its high byte be lost."""
    chunk = struct.pack(">I", 2) + b"tRNS" + struct.pack(">H", 256)
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    data = png(6, 1, 16, 0, b"\0" + struct.pack(">6H", *DEEP), chunk)
    assert pixels(data)[0, :, 0].tolist() == [0, 1, 255, *SCALED[3:]]


def test_12_bit_grey_is_scaled_by_12_bits() -> None:
    """Twelve-bit images would come out sixteen times too dark."""
    values = [0, 2048, 4095, 1000]
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
        for a, b in zip(values[::2], values[1::2], strict=True)
    )
    assert pixels(tiff(packed, 4, 12, 1))[0, :, 0].tolist() == [round(v * 255 / 4095) for v in values]


def test_16_bit_colour_and_alpha() -> None:
    """Sixteen-bit colours would be clipped, or the low byte taken for the value."""
    values = struct.pack(">4H", 51400, 2570, 15420, 65535) + struct.pack(">4H", 51400, 2570, 15420, 0)
    result = pixels(png(2, 1, 16, 6, b"\0" + values))
    assert np.abs(result - [[[200, 10, 60], [255, 255, 255]]]).max() <= 1
    result = pixels(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 51400, 2570, 15420)))
    assert np.abs(result - [[[200, 10, 60]]]).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_grey_without_a_white_is_refused(mode: str) -> None:
    """Float and 32-bit images would be clipped to black or white without a word."""
    with pytest.raises(UserError, match=r"a\.tif cannot be decoded \(.*range.*8 or 16"):
        decode_rgb(encoded(Image.new(mode, (4, 4), 3), "TIFF"), "a.tif")


CYAN_INK = (230, 20, 40, 10)  # much ink: little red


def naive_rgb(cmyk: tuple[int, ...]) -> list[int]:
    return [round((255 - ink) * (255 - cmyk[3]) / 255) for ink in cmyk[:3]]


def test_cmyk_keeps_its_polarity() -> None:
    """CMYK photographs would be negatives: Adobe's JPEGs, those without its marker, or TIFFs."""
    image = Image.new("CMYK", (16, 16), CYAN_INK)
    adobe = encoded(image, "JPEG", quality=100)
    start = adobe.index(b"\xff\xee\x00\x0eAdobe")
    plain = adobe[:start] + adobe[start + 16 :]
    assert np.abs(pixels(encoded(image, "TIFF")) - naive_rgb(CYAN_INK)).max() <= 2
    assert np.abs(pixels(adobe) - naive_rgb(CYAN_INK)).max() <= 4
    # The same numbers in a file that does not say they are inverted are the inverse amounts of ink
    assert np.abs(pixels(plain) - naive_rgb(tuple(255 - ink for ink in CYAN_INK))).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    """Phone photographs would lie on their side, and an object's upright pose would be noise."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :12] = 80  # every quarter another grey: rotations and mirrors all differ
    upright[:8, 12:] = 160
    upright[8:, 12:] = 240
    # What a camera stores so that the viewer's turn (EXIF 2.3, tag 274) gives `upright`
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    result = pixels(data)
    assert result.shape == upright.shape and np.abs(result - upright).max() <= 3


def test_broken_exif_does_not_spoil_the_image() -> None:
    """A photograph with a damaged camera block would stop the run."""
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Canon"
    block = bytearray(exif.tobytes())
    entry = block.index(b"\x01\x0f\x00\x02")  # the maker, text ...
    block[entry + 1] = 0  # ... under a tag whose value cannot be text, so writing the block back fails
    data = encoded(gradient(), "JPEG", exif=bytes(block))
    assert pixels(data).shape == (24, 16, 3)


def test_plain_images_are_not_copied() -> None:
    """Decoding would be slower by one pass over every photograph."""
    image = to_rgb(encoded(gradient(), "JPEG"))
    assert image.format == "JPEG"  # convert() makes a new image, which has no format


def test_what_is_no_image_is_named() -> None:
    """The message would show a memory address in place of the file."""
    with pytest.raises(UserError) as caught:
        decode_rgb(b"not an image", "photos/a.jpg")
    assert "photos/a.jpg" in str(caught.value) and "BytesIO" not in str(caught.value)
