"""A million files: what a source keeps in memory, the order of its names, the sampler's order."""

from __future__ import annotations

import gc
import os
import pickle
from itertools import islice
from pathlib import Path

import pytest
import torch

from mst_pretrain.data.files import list_images
from mst_pretrain.data.sampler import ResumableSampler
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError

FILES = 3000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of a thousand links to one file each, and a list of them with labels."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "one").write_bytes(b"\xff\xd8\xff\xd9")
    for index in range(FILES):
        path = folder / f"images/class {index % 3}/photograph number {index:06}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "one", path)
    lines = [f"{path.relative_to(folder)} {path.parent.name}\n" for path in folder.rglob("*.JPEG")]
    (folder / "list.txt").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("spec", ["images", "list.txt"])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_source_holds_no_object_per_file(many: Path, spec: str, labelled: bool) -> None:
    """Each of a million reference counts would be written by each worker, which then holds a copy of the list."""
    open_source(many / spec, labelled)  # what the first call imports is not counted
    gc.collect()
    before = len(gc.get_objects())
    source = open_source(many / spec, labelled)
    gc.collect()
    assert len(source) == FILES and len(gc.get_objects()) - before < 50
    per_file = len("class 0/photograph number 000000.JPEG") + 8 + 8 * labelled
    where = (len(str(many)) + 8) if spec == "list.txt" else 0
    assert len(pickle.dumps(source)) < FILES * (per_file + where) + 2000


def test_names_come_in_the_order_of_sorted_paths(tmp_path: Path) -> None:
    """A checkpoint made before would continue on other images; two machines would see two orders."""
    folders = [
        "a",
        "a-b",
        "a b",
        "a.b",
        "a/c",
        "ä",
        "Z",
        "\N{GRINNING FACE}",
        os.fsdecode(b"a\xff"),
        "a\ue000",
    ]
    names = ["x.jpg", "x-1.JPG", "x 1.png", "x.1.webp", "ö.jpg", os.fsdecode(b"\xe9.jpg"), "a.jpg", "-.tif"]
    for folder in folders:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{folder} {name}".encode(errors="surrogateescape").hex())
    for name in ("a-b.jpg", "a.jpg", "b", ".hidden.jpg"):
        (tmp_path / name).write_text("61")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    found = [p for p in tmp_path.rglob("*") if p.suffix.lower() in {".jpg", ".png", ".webp", ".tif"}]
    expected = sorted(path for path in found if not path.name.startswith("."))
    assert len(expected) == len(folders) * len(names) + 3 and list_images(tmp_path) == expected
    source = open_source(tmp_path)
    assert [source.name(index) for index in range(len(source))] == list(map(str, expected))
    for index in range(0, len(source), 7):
        if expected[index].name != "link.jpg":
            assert source.read(index) == expected[index].read_bytes()
    pickled = pickle.loads(pickle.dumps(source))
    assert pickled.name(len(source) - 1) == str(expected[-1])


def test_a_relative_folder_gives_the_names_it_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages and lists of broken images would name files in a second way."""
    (tmp_path / "b").mkdir()
    for name in ("a.jpg", "b/c.jpg"):
        (tmp_path / name).write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    for spec, names in (
        (".", ["a.jpg", "b/c.jpg"]),
        ("./b/", ["b/c.jpg"]),
        ("b/..", ["b/../a.jpg", "b/../b/c.jpg"]),
    ):
        source = open_source(spec)
        assert [source.name(index) for index in range(len(source))] == names and source.read(0) == b"1"


def test_an_index_beyond_the_last_file_is_an_error(many: Path) -> None:
    """A wrong index would read another image, or bytes from the middle of a name."""
    source = open_source(many / "images")
    assert source.name(-1) == source.name(FILES - 1)
    with pytest.raises(IndexError):
        source.name(FILES)


def test_a_source_does_not_outlive_a_folder_without_images(tmp_path: Path) -> None:
    """A folder of folders and notes would open as an empty source."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.md").write_text("no image")
    with pytest.raises(UserError, match="holds no image"):
        open_source(tmp_path)


@pytest.mark.parametrize("seed", [0, 3, 1_000_000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_order_of_samples_is_that_of_a_list_without_being_one(seed: int, shuffle: bool) -> None:
    """A run resumed from an older checkpoint would see other images, or an epoch's order be a million objects."""
    size = 500
    sampler = ResumableSampler(range(size), shuffle, seed)
    expected = []
    for epoch in range(3):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(size, generator=generator).tolist() if shuffle else list(range(size))
        expected += [(epoch, index) for index in order]
    stream = list(islice(iter(sampler), 3 * size))
    assert stream == expected and {type(index) for _, index in stream} == {int}
    assert not isinstance(sampler._order(0), list)
