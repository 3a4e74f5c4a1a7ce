"""One spec string names a source: which kind it opens, folders, text lists, class numbers."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.data.labels import number_classes
from mst_pretrain.data.shards import ShardSource
from mst_pretrain.data.sources import FileSource, open_source
from mst_pretrain.runtime.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))


def photo(path: Path, color: tuple[int, int, int] = (9, 9, 9)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)
    return path


def test_folders_of_any_shape(tmp_path: Path) -> None:
    """Nested or flat unlabelled folders, or upper-case suffixes, would lose images."""
    names = ["a.jpg", "b/c.PNG", "b/d/e.webp", "f/g.Tiff"]
    for name in names:
        photo(tmp_path / "images" / name)
    (tmp_path / "images/notes.md").write_text("no image")
    source = open_source(tmp_path / "images")
    assert isinstance(source, FileSource) and source.labels is None and source.classes == []
    assert [source.name(i) for i in range(len(source))] == [str(tmp_path / "images" / name) for name in names]
    assert source.read(1) == (tmp_path / "images/b/c.PNG").read_bytes()


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    """Thumbnails would be pretrained on and become class 0; an empty checkpoint folder would stop a labelled run."""
    for name in (".thumbs/a.jpg", "cat/a.jpg", "cat/.thumbs/a.jpg", "dog/a.jpg"):
        photo(tmp_path / ".data" / name)
    (tmp_path / ".data/.ipynb_checkpoints").mkdir()
    for labelled in (False, True):
        source = open_source(tmp_path / ".data", labelled)
        names = [Path(source.name(index)).parent.name for index in range(len(source))]
        assert names == ["cat", "dog"]
    assert source.classes == ["cat", "dog"] and list(source.labels) == [0, 1]


@pytest.mark.parametrize("labelled", [False, True])
def test_only_regular_files_are_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], labelled: bool
) -> None:
    """A pipe under the name of an image would be read forever."""
    photo(tmp_path / "a/b.jpg")
    os.mkfifo(tmp_path / "a/c.jpg")
    listener = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    listener.bind("a/d.png")
    listener.close()
    source = open_source(tmp_path, labelled)
    assert len(source) == 1 and source.name(0).endswith("b.jpg")
    assert "left out: 2 (pipes, sockets or devices, not regular files)" in capsys.readouterr().out
    (tmp_path / "a/e.jpg").symlink_to("c.jpg")
    with pytest.raises(UserError, match=r"e\.jpg \(a pipe, a socket or a device, not a regular file"):
        open_source(tmp_path, labelled).check()


def test_links_do_not_multiply_images(tmp_path: Path) -> None:
    """A link to the folder above would show every image forty times; one to another disk must still be followed."""
    photo(tmp_path / "images/a.jpg")
    photo(tmp_path / "images/b/c.jpg")
    photo(tmp_path / "disk/d.jpg")
    for link, target in {"b/up": "images", "x": "disk", "y": "disk"}.items():
        (tmp_path / "images" / link).symlink_to(tmp_path / target)
    source = open_source(tmp_path / "images")
    names = [Path(source.name(index)).relative_to(tmp_path / "images") for index in range(len(source))]
    assert names == [Path("a.jpg"), Path("b/c.jpg"), Path("x/d.jpg")]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_folder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    """A run would train without the images of a folder that it may not read, and not say so."""
    scandir, closed = os.scandir, tmp_path / "images/cat/closed"
    photo(tmp_path / "images/cat/a.jpg")
    photo(closed / "b.jpg")

    def refuse(path: str) -> Any:
        if Path(path) == closed:  # permissions do not stop the superuser
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=rf"Folder {closed}/? cannot be listed \(Permission denied\).*chmod"):
        open_source(tmp_path / "images", labelled)
    (tmp_path / "images/other.tar").write_bytes(b"")  # must not be taken in place of the images
    with pytest.raises(UserError, match="cannot be listed"):
        open_source(tmp_path / "images", labelled)


def test_list_of_paths_and_labels(tmp_path: Path) -> None:
    """Lists as mmpretrain and others write them would be misread: names with spaces, comments, absolute paths."""
    paths = [
        tmp_path / "lists/a b.jpg",
        tmp_path / "lists/sub/x.jpg copy.JPEG",
        photo(tmp_path / "c.png"),
        tmp_path / "d.png",
    ]
    for path in paths:
        photo(path)
    listed = tmp_path / "lists/train.txt"
    listed.write_text(
        f"\ufeff# comment\na b.jpg\thouse cat\n\n  sub/x.jpg copy.JPEG 65\n{paths[2]} dog\r\n../d.png dog  \n",
        encoding="utf-8",
    )
    source = open_source(listed, labelled=True)
    assert [Path(source.name(i)).resolve() for i in range(4)] == paths
    assert source.classes == ["65", "dog", "house cat"] and list(source.labels) == [2, 0, 1, 1]
    assert source.read(0) == paths[0].read_bytes()
    assert open_source(str(listed)).labels is None
    listed.write_text("a b.jpg\n")
    assert len(open_source(listed)) == 1
    with pytest.raises(UserError, match=r"train\.txt, line 1: 'a b\.jpg' has no label"):
        open_source(listed, labelled=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n\nno suffix\n", r"line 3: 'no suffix' has no path.*one path a line"),
        (
            "a.jpg\nb.jpg\nc.jpg 1\nd.jpg\ne.jpg\n",
            r"4 of 5 .*do not exist: .*b\.jpg, .*c\.jpg, .*d\.jpg, \.\.\.",
        ),
        ("# nothing\n", "lists no image"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """A run would start and stop at the first missing photograph, without its number or line."""
    photo(tmp_path / "a.jpg")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=rf"list\.txt.*{message}"):
        open_source(tmp_path / "list.txt")


def test_truncated_file_of_a_list_is_found_before_the_first_step(tmp_path: Path) -> None:
    """A half-copied photograph would stop the run hours later."""
    path = photo(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-20])
    photo(tmp_path / "b.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(UserError, match=r"1 of 2 images cannot be used: .*a\.jpg \(truncated JPEG"):
        open_source(tmp_path / "list.txt").check()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_whole_image_with_a_long_trailer_is_accepted(tmp_path: Path, suffix: str) -> None:
    """A phone's photograph with a film behind it would be called truncated, or a half one pass for whole."""
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    noise.save(tmp_path / f"a{suffix}")
    data, film = (tmp_path / f"a{suffix}").read_bytes(), b"\0\0\0\x18ftypmp42\xff" * 1000
    (tmp_path / f"a{suffix}").write_bytes(data + film)
    open_source(tmp_path).check()
    (tmp_path / f"a{suffix}").write_bytes(data[: len(data) // 2] + film)
    with pytest.raises(UserError, match=r"1 of 1 .*truncated"):
        open_source(tmp_path).check()


def test_images_that_only_decoding_can_judge_are_decoded(tmp_path: Path) -> None:
    """A TIFF that cannot be used would pass the check and stop the run in its middle."""
    Image.new("L", (64, 64), 7).save(tmp_path / "good.tif")
    Image.new("F", (64, 64), 0.5).save(tmp_path / "float.tif")
    data = (tmp_path / "good.tif").read_bytes()
    (tmp_path / "half.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"2 of 3 .*float\.tif \(F-mode grey .*half\.tif \(not decodable"):
        open_source(tmp_path).check()


def test_folder_of_shards_is_opened_as_shards(tmp_path: Path) -> None:
    """A folder of tar files would be called empty, or train and val shards in one folder be mixed."""
    photo(tmp_path / "one.jpg")
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("train-000.tar", "train-001.tar"):
        with tarfile.open(folder / name, "w") as tar:
            tar.add(tmp_path / "one.jpg", "one.jpg")
    assert isinstance(open_source(folder), ShardSource) and len(open_source(folder)) == 2
    (folder / "train-001.tar").rename(folder / "val-001.tar")
    with pytest.raises(UserError, match=r"2 sets: train-\*\.tar, val-\*\.tar"):
        open_source(folder)
    assert len(open_source(folder / "train-*.tar")) == 1


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("spec", ["nowhere", "nowhere.txt", "nowhere.tar", "nowhere-*.tar"])
def test_what_does_not_exist_is_named(tmp_path: Path, spec: str, labelled: bool) -> None:
    """A typing error in data_root would end in a traceback."""
    with pytest.raises(UserError, match=r"nowhere.*(?i:check|correct|expected|must be)"):
        open_source(tmp_path / spec, labelled)


def test_classes_are_numbered_alike_everywhere() -> None:
    """Class 10 would come before class 2, so the indices of a shard's integers were other classes."""
    for names, numbers, classes in (
        (["10", "2", "007", "2"], [2, 0, 1, 0], ["2", "7", "10"]),
        (["b", "10", "a", "b"], [2, 0, 1, 2], ["10", "a", "b"]),
    ):
        labels, found = number_classes(names)
        assert labels.tolist() == numbers and labels.dtype == np.int64 and found == classes
