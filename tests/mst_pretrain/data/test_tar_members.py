"""The short way through the headers of a tar file, beside Python's own reader."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mst_pretrain.data import tar_members
from mst_pretrain.data.tar_members import members_of

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(kind: str, mtime: float, **pax: str) -> bytes:
    """Short and long names, folders, links and other letters."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=FORMATS[kind], pax_headers=pax) as tar:
        for number in range(16):
            member = tarfile.TarInfo("d/" * (8 * number if kind != "ustar" else 60) + f"{number}.jpg")
            if number == 13:
                member.name = "ä.jpg"
            member.size, member.mtime = 100 * number, mtime
            tar.addfile(member, io.BytesIO(bytes(range(100)) * number))
            if number in (5, 9):
                other = tarfile.TarInfo(f"other{number}")
                other.type, other.linkname = (tarfile.DIRTYPE if number == 5 else tarfile.SYMTYPE), "x"
                tar.addfile(other)
    return stream.getvalue()


def read(path: Path, members: Callable[[tarfile.TarFile], Iterable[tarfile.TarInfo]]) -> object:
    """All that is used of the members and where they end, or the error."""
    try:
        with tarfile.open(path, "r:") as tar:
            found = [(one.name, one.size, one.type, one.offset_data) for one in members(tar)]
            return found, tar.offset
    except (tarfile.TarError, ValueError) as error:
        return repr(error)


@pytest.mark.parametrize("mtime", [0, 1.5])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_members_are_those_of_tarfile(kind: str, mtime: float, tmp_path: Path) -> None:
    """An image would be read from another place of the file, or under another name, or be missing."""
    path = tmp_path / "a.tar"
    whole = archive(kind, mtime)
    for length in (len(whole), len(whole) - 9000, 3000, 1500, 700):
        path.write_bytes(whole[:length])
        assert read(path, members_of) == read(path, iter), length
    draw = random.Random(kind)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 3, 50])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        assert read(path, members_of) == read(path, iter)


@pytest.mark.parametrize(("kind", "mtime"), [("ustar", 0), ("pax", 1.5)], ids=["plain", "webdataset's"])
def test_plain_members_take_the_short_way(
    kind: str, mtime: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start on a million images in shards would take minutes instead of seconds."""
    path = tmp_path / "a.tar"
    path.write_bytes(archive(kind, mtime))
    taken = []
    short = tar_members._plain
    monkeypatch.setattr(tar_members, "_plain", lambda *args: taken.append(short(*args)) or taken[-1])
    read(path, members_of)
    names = [one.name for one in taken if one is not None]
    assert len(names) >= 5 and names[0].endswith("/1.jpg"), names  # of long names pax writes another header


def test_a_header_for_all_members_is_obeyed(tmp_path: Path) -> None:
    """A size or name that a global header gives would be overlooked."""
    path = tmp_path / "a.tar"
    path.write_bytes(archive("pax", 0, comment="of all"))
    assert read(path, members_of) == read(path, iter)
