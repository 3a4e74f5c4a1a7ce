"""Tar shards: what is read from them, how they are named and fetched, which damage is reported."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mst_pretrain.data import fetch, shards, tar_index
from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.data.shards import ShardSource
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError
from tests.forked import Forked, outputs_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(first: int, count: int) -> list[tuple[str, bytes]]:
    return [
        member
        for i in range(first, first + count)
        for member in [(f"{i:05}.jpg", jpeg(i)), (f"{i:05}.cls", str(i % 3 * 5).encode())]
    ]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Shards 000 to 002 of 3, 1 and 2 samples."""
    for number, (first, count) in enumerate([(0, 3), (3, 1), (4, 2)]):
        write(tmp_path / f"t-{number:03}.tar", samples(first, count))
    return tmp_path


def test_members_come_back_byte_for_byte(three: Path) -> None:
    """Images would be read from a wrong place in the shard, or carry another image's label."""
    source = open_source(f"{three}/t-{{000..002}}.tar", labelled=True)
    assert (
        len(source) == 6 and source.classes == ["0", "5", "10"] and list(source.labels) == [0, 1, 2, 0, 1, 2]
    )
    for index in [5, 0, 3, 3, 2, 4, 1]:
        assert source.read(index) == jpeg(index)
    assert source.name(3) == f"{three}/t-001.tar/00003.jpg"
    source.check()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_webdatasets_naming_rules(tmp_path: Path, form: int) -> None:
    """Long names, folders, upper case, other members, or a writer's order of them would lose or mix samples."""
    long = "d/" + "n" * 150
    members = [
        ("./__meta__/info.json", b"{}"),
        ("./._0.jpg", b"macOS"),
        ("a/0.cls", b"cat"),
        ("b/0.cls", b"dog"),
        ("b/0.JPG", jpeg(1)),
        ("b/0.json", b"{}"),
        ("a/0.jpg", jpeg(2)),
        ("a/0.seg.png", b"another picture of the sample"),
        (f"{long}.png", jpeg(3)),
        (f"{long}.cls", b"cat"),
    ]
    source = open_source(write(tmp_path / "x.tar", members, format=form), labelled=True)
    assert {source.name(i): source.read(i) for i in range(3)} == {
        f"{tmp_path}/x.tar/a/0.jpg": jpeg(2),
        f"{tmp_path}/x.tar/b/0.JPG": jpeg(1),
        f"{tmp_path}/x.tar/{long}.png": jpeg(3),
    }
    assert list(source.labels) == [0, 1, 0] and source.classes == ["cat", "dog"]


def test_same_crops_from_shards_as_from_files(three: Path, tmp_path: Path) -> None:
    """Packing a data set would change what a network trained on it sees."""
    for index in range(6):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{index:05}.jpg").write_bytes(jpeg(index))
    crops = dict(global_crops=[dict(size=8)], local_count=0)
    packed = UnlabelledImages(f"{three}/t-*.tar", crops)
    loose = UnlabelledImages(str(tmp_path / "files"), crops)
    for item in [(0, 5), (1, 0), (1, 3)]:
        one, other = packed[item], loose[item]
        assert set(one) == set(other) and one.pop("faults") == other.pop("faults") == ""
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_patterns_name_shards_in_their_order(three: Path) -> None:
    """Several patterns or a glob would lose shards or order them by chance: another stream on another machine."""
    source = open_source(f"{three}/t-002.tar::{three}/t-{{000..001}}.tar")
    assert [source.name(i)[-9:-4] for i in range(6)] == ["00004", "00005", "00000", "00001", "00002", "00003"]
    assert [open_source(f"{three}/t-*.tar").read(i) for i in range(6)] == [jpeg(i) for i in range(6)]
    with pytest.raises(UserError, match=r"names 1 shards more than once: .*t-002\.tar"):
        open_source(f"{three}/t-*.tar::{three}/t-002.tar")
    (three / "odd[1].tar").write_bytes((three / "t-001.tar").read_bytes())
    assert len(open_source(three / "odd[1].tar")) == 1


def test_missing_shards_of_a_range_are_named(three: Path) -> None:
    """A data set without some of its shards would be trained on without a word."""
    with pytest.raises(UserError, match=r"2 of 5 shards do not exist: .*t-003\.tar, .*t-004\.tar\. Copy"):
        open_source(f"{three}/t-{{000..004}}.tar")
    with pytest.raises(UserError, match=r"Write a range of shards as \{000\.\.146\}"):
        open_source(f"{three}/t-{{000..004.tar::{three}/}}.tar")


def cut_inside(data: bytes) -> bytes:
    return data[: 512 + 100]


def cut_between_members(data: bytes) -> bytes:
    return data[: data.index(b"00001.jpg")]


def cut_in_a_header(data: bytes) -> bytes:
    return data[: data.index(b"00001.jpg") + 200]


def spoil_a_header(data: bytes) -> bytes:
    return data.replace(b"00001.jpg", b"spoilt!!!")


@pytest.mark.parametrize("damage", [cut_inside, cut_between_members, cut_in_a_header, spoil_a_header])
def test_damaged_shard_is_refused(three: Path, damage: Callable[[bytes], bytes]) -> None:
    """The samples behind a cut or a spoilt header would be missing from every epoch without a word."""
    path = three / "t-000.tar"
    open_source(path)  # its index is kept now
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"t-000\.tar is truncated or damaged \(.+\)\. Copy it again"):
        open_source(three / "t-*.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*samples(0, 2), ("7.cls", b"1")], r"1 of 3 samples have no image .*7\.\(cls\).*rename or remove"),
        ([("my.photo.jpg", b"x")], r"no image.*my\.\(photo\.jpg\).*ends at the first dot"),
        ([*samples(0, 2), *samples(1, 1)], r"holds 00001\.jpg twice\. Give"),
        ([("0.jpg", b"x"), ("0.png", b"x")], "two images under one key: 0"),
        ([], "holds no image"),
    ],
)
def test_bad_samples_are_refused(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    """A sample would be left out, or seen twice, without a word."""
    with pytest.raises(UserError, match=rf"x\.tar.*{message}"):
        open_source(write(tmp_path / "x.tar", members))


def test_joined_and_compressed_archives_are_refused(three: Path) -> None:
    """Everything behind the first of two joined archives would be lost; gzip would end in a traceback."""
    joined = three / "joined.tar"
    joined.write_bytes((three / "t-000.tar").read_bytes() + (three / "t-001.tar").read_bytes())
    with pytest.raises(UserError, match=r"joined\.tar holds a second archive"):
        open_source(joined)
    (three / "x.tar.gz").write_bytes(gzip.compress((three / "t-000.tar").read_bytes()))
    with pytest.raises(UserError, match=r"x\.tar\.gz is compressed.*gunzip"):
        open_source(three / "x.tar.gz")
    (three / "text.tar").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"text\.tar is truncated or damaged"):
        open_source(three / "text.tar")


def test_truncated_image_inside_a_shard_is_found(tmp_path: Path) -> None:
    """A photograph packed half would stop the run at the step that draws it; a whole one behind it hid the cut."""
    members = samples(0, 4)
    members[2] = (members[2][0], members[2][1][:-2])
    members[6] = (members[6][0], b"")
    path = write(tmp_path / "x.tar", members)
    with pytest.raises(
        UserError, match=r"2 of 4 images .*x\.tar/00001\.jpg \(truncated JPEG.*00003\.jpg \(empty"
    ):
        open_source(path).check()


def test_missing_labels_are_named(tmp_path: Path) -> None:
    """An evaluation would give unlabelled images some class."""
    path = write(tmp_path / "x.tar", [*samples(0, 2), ("9.jpg", jpeg(9))])
    assert len(open_source(path)) == 3
    with pytest.raises(UserError, match=r"1 of 3 samples have no label.*x\.tar/9\.jpg"):
        open_source(path, labelled=True)


def test_index_is_kept_until_the_shard_changes(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every start would read millions of headers again, or read a rewritten shard at its old places."""
    calls = []
    read_headers = tar_index.read_headers
    monkeypatch.setattr(tar_index, "read_headers", lambda path: calls.append(path.name) or read_headers(path))
    assert len(open_source(three / "t-*.tar")) == 6 and len(calls) == 3
    assert open_source(three / "t-*.tar").read(4) == jpeg(4) and len(calls) == 3
    write(three / "t-001.tar", samples(70, 2))
    assert open_source(three / "t-*.tar").read(4) == jpeg(71) and calls[3:] == ["t-001.tar"]
    for kept in fetch.cache_folder("indices").iterdir():
        kept.write_bytes(b"damaged")
    assert open_source(three / "t-*.tar").read(4) == jpeg(71) and len(calls) == 7


def test_cache_that_cannot_be_written_is_no_error(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody with a read-only home folder could train from local shards."""
    (three / "file").write_text("")
    monkeypatch.setenv("MST_CACHE", str(three / "file"))
    assert len(open_source(three / "t-*.tar")) == 6
    with pytest.raises(UserError, match=r"x\.tar: fetched shards cannot be kept .*MST_CACHE"):
        open_source("pipe:cat x.tar")


def test_sources_travel_to_workers(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawned workers could not start, or a thousand shards would use up the open files of a process."""
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    source = open_source(three / "t-*.tar")
    assert isinstance(source, ShardSource)
    copy = pickle.loads(pickle.dumps(source))
    for index in [0, 3, 5, 1, 4, 3]:
        assert source.read(index) == jpeg(index) == copy.read(index)
        assert len(source._files) <= 2 and str(source.paths[[*source._files][-1]]) in source.name(index)
    assert len(pickle.loads(pickle.dumps(source))._files) == 0


def test_shard_that_disappears_or_shrinks_is_named(three: Path) -> None:
    """A worker would hand half an image to the decoder, or die without the name of the shard."""
    source = open_source(three / "t-*.tar")
    (three / "t-000.tar").unlink()
    with pytest.raises(UserError, match=r"t-000\.tar cannot be read"):
        source.read(0)
    os.truncate(three / "t-001.tar", 600)
    with pytest.raises(UserError, match=r"t-001\.tar became shorter"):
        source.read(3)


def test_urls_are_fetched_once(three: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Shards behind a URL could not be read, or would be fetched again at every start."""
    pytest.importorskip("webdataset")
    log, script = three / "log", three / "fetch.sh"
    script.write_text(f"echo x >> {log}; cat $1")
    spec = f"pipe:sh {script} {three}/t-{{000..002}}.tar"
    for _ in range(2):
        source = open_source(spec)
        assert [source.read(i) for i in range(6)] == [jpeg(i) for i in range(6)]
    assert log.read_text() == "x\n" * 3
    assert sorted(path.suffix for path in (cache / "shards").iterdir()) == [".lock"] * 3 + [".tar"] * 3


@pytest.mark.parametrize(
    "command", ["head -c 900 {}", "sh -c 'cat {}; exit 3'", "echo '<html>404</html>'", "true", "cat {}.gone"]
)
def test_failed_fetch_leaves_nothing(three: Path, cache: Path, command: str) -> None:
    """A broken transfer would be kept as a shard and be read, or never be tried again."""
    pytest.importorskip("webdataset")
    with pytest.raises(UserError, match=r"pipe:.* cannot be fetched to .*Check the address; MST_CACHE"):
        open_source("pipe:" + command.format(three / "t-000.tar"))
    assert [path.suffix for path in (cache / "shards").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "rest", ["; touch {0}", "&& touch {0}", "| tee {0}", "> {0}", "$(touch {0})", "& touch {0}"]
)
def test_no_shell_reads_a_command(three: Path, rest: str) -> None:
    """A data path of somebody else's config line could run a second command, or overwrite a file."""
    trace = three / "trace"
    with pytest.raises(UserError, match=r"pipe: takes one command and its arguments"):
        open_source(f"pipe:cat {three}/t-000.tar {rest.format(trace)}")
    assert not trace.exists()
    assert len(open_source(f"pipe:cat '{three}/t-000.tar'")) == 3


def test_unknown_scheme_is_explained(tmp_path: Path) -> None:
    """s3:// would end in webdataset's traceback."""
    pytest.importorskip("webdataset")
    with pytest.raises(UserError, match=r"s3://bucket/x\.tar cannot be fetched .*no gopen handler"):
        open_source("s3://bucket/x.tar")


def test_one_process_fetches_and_the_others_wait(three: Path) -> None:
    """Eight processes of a node would fetch a data set eight times, or read a shard that is half written."""
    pytest.importorskip("webdataset")
    log, script = three / "log", three / "fetch.sh"
    script.write_text(f"echo x >> {log}; sleep 0.5; cat $1")
    spec = f"pipe:sh {script} {three}/t-{{000..001}}.tar"
    code = (
        "import sys; from mst_pretrain.data.sources import open_source; print(len(open_source(sys.argv[1])))"
    )
    worker = three / "worker.py"
    worker.write_text(code)
    assert outputs_of([Forked(str(worker), spec) for _ in range(2)]) == ["4\n", "4\n"]
    assert log.read_text() == "x\n" * 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl not installed")
def test_http(three: Path) -> None:
    """The commonest URL would not work."""
    pytest.importorskip("webdataset")
    code = (
        "import http.server as s; h = s.ThreadingHTTPServer(('127.0.0.1', 0), s.SimpleHTTPRequestHandler);"
        "print(h.server_port, flush=True); h.serve_forever()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=three,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        source = open_source(f"{address}/t-{{000..002}}.tar", labelled=True)
        assert [source.read(i) for i in range(6)] == [jpeg(i) for i in range(6)]
        with pytest.raises(UserError, match=r"t-009\.tar cannot be fetched"):
            open_source(f"{address}/t-009.tar")
    finally:
        server.kill()
        server.wait()


def test_missing_package_names_the_command(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody without the optional package would read an ImportError; plain local shards need none."""
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    monkeypatch.setitem(sys.modules, "webdataset.gopen", None)
    assert len(open_source(three / "t-*.tar")) == 6
    for spec in (f"{three}/t-{{000..002}}.tar", "https://localhost/t.tar"):
        with pytest.raises(UserError, match="pip install webdataset"):
            open_source(spec)


@pytest.mark.skipif("MST_REAL_DATA" not in os.environ, reason="real data not present")
def test_real_shards() -> None:
    """Shards as other people's tools write them would not be read."""
    folder = Path(os.environ["MST_REAL_DATA"], "tiny-imagenet-100")
    source = open_source(folder / "val-*.tar", labelled=True)
    source.check()
    assert len(source) == 5000 and source.classes == [str(label) for label in range(100)]
    assert source.labels is not None and set(np.bincount(source.labels)) == {50}
