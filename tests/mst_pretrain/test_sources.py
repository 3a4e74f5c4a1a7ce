"""Every kind of source gives the same images, names and classes as the folder it was made from."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.data import fetch
from mst_pretrain.data.shards import members
from mst_pretrain.data.sources import ImageSource, open_source
from mst_pretrain.errors import UserError

CLASSES = ("cat", "dog", "eel")


def encoded(seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_shard(path: Path, contents: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in contents.items():
            add(tar, name, content)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos in three class folders."""
    root = tmp_path_factory.mktemp("photos")
    for index in range(8):
        path = root / "folder" / CLASSES[index % 3] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(index))
    return root


@pytest.fixture(scope="module")
def specs(photos: Path) -> dict[str, str]:
    """The same photos, in the same order, as every kind of source."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn

    paths = sorted((photos / "folder").rglob("*.jpg"))
    names = [path.relative_to(photos).as_posix() for path in paths]
    labels = [path.parent.name for path in paths]
    (photos / "list.txt").write_text(
        "# photos\n\n" + "".join(f"{name}\t{label}\n" for name, label in zip(names, labels, strict=True))
    )
    (photos / "shards").mkdir()
    for number, part in enumerate((slice(0, 5), slice(5, 6), slice(6, 8))):
        contents: dict[str, bytes] = {}
        for path, label in zip(paths[part], labels[part], strict=True):
            contents[f"{path.stem}.cls"] = str(CLASSES.index(label)).encode()
            contents[f"{path.stem}.jpg"] = path.read_bytes()
        write_shard(photos / "shards" / f"part-{number:03d}.tar", contents)
    table = {
        "photo": [{"bytes": path.read_bytes(), "path": None} for path in paths],
        "kind": [CLASSES.index(label) for label in labels],
    }
    features = Features({"photo": ImageColumn(), "kind": ClassLabel(names=list(CLASSES))})
    Dataset.from_dict(table, features=features).save_to_disk(photos / "saved")
    return {
        "folder": str(photos / "folder"),
        "list": str(photos / "list.txt"),
        "braces": str(photos / "shards" / "part-{000..002}.tar"),
        "glob": str(photos / "shards" / "*.tar"),
        "several": "::".join(str(photos / "shards" / f"part-00{number}.tar") for number in range(3)),
        "folder of shards": str(photos / "shards"),
        "hub": f"hf:{photos / 'saved'}",
        "hub, column": f"hf:{photos / 'saved'}#photo",
    }


KINDS = (
    "folder",
    "list",
    "braces",
    "glob",
    "several",
    "folder of shards",
    "pipe URLs",
    "hub",
    "hub, column",
)


@pytest.fixture
def opened(specs: dict[str, str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a kind of source, with a cache folder of its own."""
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))
    commands = [f"pipe:cat {photos}/shards/part-00{number}.tar" for number in range(3)]
    return lambda kind, **options: open_source({**specs, "pipe URLs": "::".join(commands)}[kind], **options)


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_is_the_folder(kind: str, opened: Callable[..., ImageSource], photos: Path) -> None:
    """Images would be lost, doubled, reordered, or given another one's class on the way into another format."""
    paths = sorted((photos / "folder").rglob("*.jpg"))
    source = opened(kind, labelled=True)
    assert [source.read(index) for index in range(len(source))] == [path.read_bytes() for path in paths]
    assert source.labels is not None and len(source) == 8
    names = [source.classes[label] for label in source.labels]
    expected = [path.parent.name for path in paths]
    if names[0].isdigit():  # a .cls file holds a number
        names = [CLASSES[int(name)] for name in names]
    assert names == expected
    plain = opened(kind)
    assert plain.labels is None and plain.classes == [] and plain.read(3) == source.read(3)
    assert len({source.name(index) for index in range(8)}) == 8
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(7) == paths[7].read_bytes() and copy.name(7) == source.name(7)
    source.check()


def test_a_url_is_fetched_once(opened: Callable[..., ImageSource], tmp_path: Path, photos: Path) -> None:
    """Every run would fetch again, or a broken fetch leave half a shard under its name."""
    opened("pipe URLs")
    kept = sorted((tmp_path / "cache").iterdir())
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 3 and not any(path.name.endswith(".part") for path in kept)
    opened("pipe URLs")
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "cache").iterdir())] == stamps
    bad = f"pipe:head -c 900 {photos}/shards/part-000.tar; exit 3"
    with pytest.raises(UserError, match=r"cannot be fetched.*MST_CACHE"):
        open_source(bad)
    assert sorted((tmp_path / "cache").iterdir()) == kept
    assert not fetch.cached_path(bad).exists()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_tarfiles(form: int, tmp_path: Path) -> None:
    """Long, nested or non-ASCII names, empty or odd-sized members would be read from the wrong place."""
    contents = {
        "a.jpg": b"x" * 511,
        "deep/" * 18 + "b.jpg": b"y" * 512,
        "c.empty": b"",
        "d.jpg": b"z" * 513,
    }
    if form != tarfile.USTAR_FORMAT:
        contents |= {"n" * 180 + ".jpg": b"long", "grüße/ä.jpg": b"umlaut"}
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("folder/"))
        for name, content in contents.items():
            add(tar, name, content)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        tar.addfile(link)
    raw = path.read_bytes()
    got = {member.name: raw[member.offset : member.offset + member.size] for member in members(path)}
    assert {name: content for name, content in got.items() if name != "folder/"} == contents


def test_bad_shards_are_named(tmp_path: Path) -> None:
    """A truncated or wrongly written shard would lose images without a word, or stop the run in its middle."""
    good = write_shard(tmp_path / "good.tar", {"a.jpg": encoded(0), "a.cls": b"1"})
    raw = good.read_bytes()
    bad: dict[str, tuple[bytes, str]] = {
        "cut.tar": (raw[:700], r"cut\.tar is truncated inside a\.jpg"),
        "endless.tar": (raw[: 512 + len(encoded(0)) // 512 * 512 + 512], "end of the archive is missing"),
        "text.tar": (b"photos " * 100, "no tar file"),
        "flipped.tar": (raw[:10] + b"\xff" + raw[11:], "no tar file"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_source(tmp_path / name)
    written: dict[str, tuple[dict[str, bytes], str]] = {
        "alone": ({"a.jpg": encoded(0), "b.cls": b"1"}, r"1 samples have no image.*: b\."),
        "two": ({"a.jpg": encoded(0), "a.png": encoded(0, "PNG")}, "two images have the key 'a'"),
        "none": ({}, "no sample"),
    }
    for name, (contents, message) in written.items():
        with pytest.raises(UserError, match=message):
            open_source(write_shard(tmp_path / f"{name}.tar", contents))
    unlabelled = write_shard(tmp_path / "plain.tar", {"a.jpg": encoded(0)})
    with pytest.raises(UserError, match=r"no class \(\.cls\)"):
        open_source(unlabelled, labelled=True)
    with pytest.raises(UserError, match=r"2 of 3 shards are missing.*b1\.tar"):
        (tmp_path / "b0.tar").write_bytes(raw)
        open_source(str(tmp_path / "b{0..2}.tar"))
    with pytest.raises(UserError, match="no file matches"):
        open_source(str(tmp_path / "q*.tar"))


def test_truncated_images_inside_shards_and_data_sets_are_found(tmp_path: Path) -> None:
    """A truncated image would stop the run in its middle instead of before it."""
    from datasets import Dataset, Features
    from datasets import Image as ImageColumn

    images = [encoded(0), encoded(1)[:-40], encoded(2, "PNG"), encoded(3, "PNG")[:-20]]
    suffixes = ("jpg", "jpg", "png", "png")
    contents = {
        f"{i}.{suffix}": image for i, (suffix, image) in enumerate(zip(suffixes, images, strict=True))
    }
    shard = write_shard(tmp_path / "x.tar", contents)
    with pytest.raises(
        UserError, match=r"2 of 4 images.*x\.tar:1\.jpg \(truncated JPEG.*x\.tar:3\.png \(truncated PNG"
    ):
        open_source(shard).check()
    table = Dataset.from_dict(
        {"image": [{"bytes": image, "path": None} for image in images]},
        features=Features({"image": ImageColumn()}),
    )
    table.save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=r"2 of 4 images.*row 1 \(truncated JPEG"):
        open_source(f"hf:{tmp_path / 'saved'}").check()


def test_lists(tmp_path: Path, photos: Path) -> None:
    """A path with blanks would be cut, a number at its end be taken for a class, or a missing image be skipped."""
    (tmp_path / "my photos").mkdir()
    for name in ("my photos/a 1.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(encoded(0))
    absolute = next((photos / "folder/cat").iterdir())
    listing = tmp_path / "list.txt"
    listing.write_text(f"my photos/a 1.jpg\nb.jpg 10\n# c.jpg\n{absolute}\n")
    source = open_source(listing)
    assert [source.name(i) for i in range(3)] == [
        str(tmp_path / "my photos/a 1.jpg"),
        str(tmp_path / "b.jpg"),
        str(absolute),
    ]
    with pytest.raises(UserError, match=r"2 lines have no class: my photos/a 1\.jpg"):
        open_source(listing, labelled=True)
    listing.write_text("my photos/a 1.jpg 10\nb.jpg 9\n")
    labelled = open_source(listing, labelled=True)
    assert labelled.classes == ["9", "10"] and labelled.labels == [1, 0]
    listing.write_text("b.jpg\nmissing.jpg\n")
    with pytest.raises(UserError, match=r"names 1 images of 2 that do not exist: .*missing\.jpg"):
        open_source(listing)
    listing.write_text("# nothing\n")
    with pytest.raises(UserError, match="names no image"):
        open_source(listing)
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        open_source(tmp_path / "gone.txt")


def test_data_sets_that_do_not_fit_are_refused(photos: Path, specs: dict[str, str]) -> None:
    """A wrong split or column would end in a traceback of the library's."""
    saved = specs["hub"]
    with pytest.raises(UserError, match=r"no column 'picture' \(found: photo, kind\)"):
        open_source(f"{saved}#picture")
    with pytest.raises(UserError, match="Leave @val out"):
        open_source(f"{saved}@val")
    with pytest.raises(UserError, match="hf:PATH"):
        open_source("hf:")
    with pytest.raises(UserError, match="cannot be opened"):
        open_source(f"hf:{photos / 'folder' / 'cat'}@nothing")
