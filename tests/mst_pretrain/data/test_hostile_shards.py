"""Shards with members that no program should write: nothing leaves the shard, and nothing is read without bound."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))


def jpeg(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "JPEG")
    return buffer.getvalue()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = max(size, 0), kind, link
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if size < 0 or size >= 8**11:
        block[124:136] = (b"\xff" if size < 0 else b"\x80") + struct.pack(">q", size).rjust(
            11, b"\xff" if size < 0 else b"\0"
        )
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def shard(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(part + bytes(-len(part) % 512) for part in parts) + bytes(1024))
    return path


def test_paths_out_of_the_folder_have_no_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shard could write or read a file anywhere, through its members' names or links."""
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(jpeg(200))
    names = ("../outside.jpg", str(outside), "a/../../b.jpg", "c\nd\x1b[2J/e.jpg")
    files = [part for name in names for part in (header(name, len(jpeg())), jpeg())]
    links = [header("l.jpg", 0, kind, str(outside)) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)]
    devices = [header("d.jpg", 0, kind) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)]
    before = sorted(path for path in tmp_path.rglob("*"))
    source = open_source(shard(tmp_path / "x.tar", *files, *links, *devices))
    source.check()
    assert [source.read(index) for index in range(len(source))] == [jpeg()] * 2  # the others are hidden
    assert all(
        "\n" not in source.name(index) and "\x1b" not in source.name(index) for index in range(len(source))
    )
    assert outside.read_bytes() == jpeg(200)
    after = {path for path in tmp_path.rglob("*") if "cache" not in path.parts} - {tmp_path / "x.tar"}
    assert after == set(before) and "5 " in capsys.readouterr().out  # links and devices are counted


@pytest.mark.parametrize("size", [-512, -(2**40), 2**62, 8**11])
def test_absurd_sizes_are_damage(size: int, tmp_path: Path) -> None:
    """Python before 3.11.14 would walk in circles at a negative size; another one would be asked for as memory."""
    path = shard(tmp_path / "x.tar", header("a.jpg", len(jpeg())), jpeg(), header("b.jpg", size), jpeg())
    with pytest.raises(UserError, match=r"x\.tar is truncated or damaged"):
        open_source(path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [1 << 22, -512])
def test_absurd_headers_are_not_read(kind: bytes, size: int, tmp_path: Path) -> None:
    """A name of gigabytes would be read into memory."""
    content = bytes(max(size, 512))
    path = shard(tmp_path / "x.tar", header("././@LongLink", size, kind), content, header("a.jpg", 0))
    with pytest.raises(UserError, match=r"x\.tar is truncated or damaged"):
        open_source(path)


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    """A terabyte of holes would be read as the bytes behind the member."""
    block = bytearray(header("a.jpg", 512, tarfile.GNUTYPE_SPARSE))
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"%011o\0" % 2**30
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(UserError, match=r"holds a\.jpg as a sparse file.*without tar --sparse"):
        open_source(shard(tmp_path / "x.tar", bytes(block), bytes(512)))
