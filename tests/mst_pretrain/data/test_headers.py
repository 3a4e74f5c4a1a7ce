"""Pictures that are whole and cannot be used: too large, one pixel thin, or no picture, each called what it is."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from mst_pretrain.data.decode import decode_rgb
from mst_pretrain.data.files import find_encoded_fault, find_fault
from mst_pretrain.data.headers import header_size
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UnusableImage, UserError

LARGE = (20000, 10000)  # 200 million pixels; Pillow decodes 178,956,970


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))


def encoded(kind: str, size: tuple[int, int] = (31, 24), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(buffer, kind, **options)
    return buffer.getvalue()


def look(content: bytes) -> str:
    return find_encoded_fault(lambda offset, length: content[offset : offset + length], len(content))


def resized(kind: str, size: tuple[int, int]) -> bytes:
    """A small file whose header says another size."""
    content, (width, height) = bytearray(encoded(kind)), size
    if kind == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif kind == "JPEG":
        at = content.index(b"\xff\xc0")
        content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0" + b"x" * 40000])
@pytest.mark.parametrize("size", [(31, 24), (1, 500), (300, 2), (4000, 7)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "progressive", "lossless", "alpha"])
def test_header_has_the_size(kind: str, size: tuple[int, int], exif: bytes) -> None:
    """A picture that cannot be decoded would pass the check, or a good one be called too large."""
    if kind in ("JPEG", "progressive"):
        content = encoded("JPEG", size, progressive=kind == "progressive", exif=exif)
    elif kind == "PNG":
        content = encoded("PNG", size)
    elif kind == "alpha":
        buffer = io.BytesIO()
        Image.new("RGBA", size, (9, 9, 9, 9)).save(buffer, "WEBP")
        content = buffer.getvalue()
    else:
        content = encoded("WEBP", size, lossless=kind == "lossless", exif=exif)
    assert header_size(lambda offset, length: content[offset : offset + length]) == size
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == size


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_pictures_beyond_pillows_limit_are_found_by_the_check(tmp_path: Path, kind: str) -> None:
    """A run would stop in its first step and tell its user to copy a whole scan again."""
    (tmp_path / f"scan.{kind}").write_bytes(resized(kind, LARGE))
    encoded_small = encoded("PNG")
    (tmp_path / "a.png").write_bytes(encoded_small)
    with pytest.raises(
        UserError, match=r"1 of 2 images cannot be used: .*scan\.\w+ \(.*pixel.*178,?956,?970.*smaller"
    ) as caught:
        open_source(tmp_path).check()
    assert "opy" not in str(caught.value) and "Do what is said of each" in str(caught.value)
    with pytest.raises(UnusableImage, match=r"scan cannot be decoded \(.*178956970 pixels: cut it up"):
        decode_rgb(resized(kind, LARGE), "scan")


def test_pillows_own_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who raised Pillow's limit would still not be allowed to use the picture, or a lower limit not be seen."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "31x24 pixels, and Pillow decodes at most 600" in look(encoded("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert look(resized("JPEG", LARGE)) == "" == look(encoded("TIFF"))


@pytest.mark.parametrize("size", [(1, 1), (500, 1), (1, 500)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_thin_pictures_are_found_by_the_check(kind: str, size: tuple[int, int]) -> None:
    """A web page's invisible dot would be trained on; a line would be resized to 128,000 pixels in an evaluation."""
    assert look(encoded(kind, size)) == f"{size[0]}x{size[1]} pixels: one pixel thin, it shows nothing"
    assert look(encoded(kind, (size[0] + 1, size[1] + 1))) == ""


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\n <!DOCTYPE HTML><html>404</html>", "a web page: download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS: git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isom", "a film: save its frames"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "an SVG drawing: convert it to PNG"),
        (b"PK\x03\x04....", "an archive: unpack it"),
        (b"\x1f\x8b\x08....", "compressed with gzip: unpack it"),
        (b"%PDF-1.7 ....", "a PDF: convert it to PNG"),
        (b"\xff\x0a.......", "a JPEG XL picture: convert it to PNG"),
    ],
)
def test_files_of_another_kind_are_called_what_they_are(tmp_path: Path, head: bytes, what: str) -> None:
    """A user would copy a whole file again, which is a web page under the name of a photograph."""
    (tmp_path / "a.jpg").write_bytes(head + bytes(100))
    if what == "a HEIC picture" and "not decodable" in find_fault(tmp_path / "a.jpg"):
        pytest.skip("pillow-heif reads it here, and finds it damaged")
    assert find_fault(tmp_path / "a.jpg").startswith(what)
    with pytest.raises(UserError, match=rf"a\.jpg \({what}.*Do what is said of each"):
        open_source(tmp_path).check()
    (tmp_path / "b.jpg").write_bytes(encoded("JPEG")[:-9])
    with pytest.raises(
        UserError, match="Copy the damaged ones again from the source, do what is said of the others"
    ):
        open_source(tmp_path).check()
