"""Every format of still pictures that Pillow reads is used; what is left out is counted by suffix and reason."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.data.files import list_images
from mst_pretrain.data.sources import open_source
from mst_pretrain.data.suffixes import FORMER, IMAGE_SUFFIXES, describe_left_out
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.runner import build_runner

READ = {  # a file name and the format that Pillow writes it in
    "a.jpg": "JPEG",
    "b.jfif": "JPEG",
    "c.JPE": "JPEG",
    "d.gif": "GIF",
    "e.ppm": "PPM",
    "f.jp2": "JPEG2000",
    "g.tga": "TGA",
    "h.ico": "ICO",
    "i.pcx": "PCX",
    "j.dds": "DDS",
    "k.mpo": "JPEG",
    "l.apng": "PNG",
}
LEFT_OUT = {  # a file that is not read, and what is said of it
    "IMG_1.HEIC": r"1 \.heic \(read with: pip install 'mst-toolkit\[heic\]'\)",
    "IMG_2.CR2": r"1 \.cr2 \(camera raw: convert to TIFF\)",
    "clip.MOV": r"1 \.mov \(films: save their frames\)",
    "photos.zip": r"1 \.zip \(archives: unpack\)",
    "notes.txt": r"1 \.txt \(not images\)",
    "cloud.pcd": r"1 \.pcd \(not images\)",
    "DSC0001": r"1 without a suffix \(not images\)",
    "a.jpg.part": r"1 \.part \(not images\)",
    "._a.jpg": r"1 \(hidden\)",
    "drawing.svg": r"1 \.svg \(of other formats: convert to PNG\)",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))


def encoded(kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def fill(folder: Path, names: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in names.items():
        (folder / name).write_bytes(encoded(kind))
    return folder


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_every_format_of_pillow_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """55 of 95 photographs would be left out of a pretraining without a word, because they end in .jfif."""
    source = open_source(fill(tmp_path / "photos", READ))
    source.check()
    assert [Path(source.name(index)).name for index in range(len(source))] == sorted(READ)
    assert capsys.readouterr().out == ""  # nothing is left out, nothing is said
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"photos/{name} a label\n" for name in READ))
    assert len(open_source(listed, labelled=True)) == len(READ)
    members = {
        f"{number}.{name.partition('.')[2]}": encoded(kind)
        for number, (name, kind) in enumerate(READ.items())
    }
    in_shard = open_source(shard(tmp_path / "t-000.tar", members))
    in_shard.check()
    assert len(in_shard) == len(READ)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Half of a folder would not be trained on, and nothing would say so."""
    folder = fill(tmp_path / "photos", {"a.jpg": "JPEG", "b.png": "PNG"})
    (folder / "sub").mkdir()
    (folder / "sub" / name).write_bytes(b"x")
    if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):  # pillow-heif is here
        pytest.skip(f"{name} is read here")
    assert len(open_source(folder)) == 2
    out = capsys.readouterr().out
    assert out.startswith(f"{folder}: 2 images; left out: ")
    assert re.search(LEFT_OUT[name], out), out
    assert out.count("\n") == 1


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    """A folder of an iPhone's photographs would be called empty."""
    (tmp_path / "photos").mkdir()
    for name in ("a.CR2", "b.cr2", "c.mp4"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"holds no image .*it holds 2 \.cr2 \(camera raw.*1 \.mp4 \(films.*Check the path"
    ):
        open_source(tmp_path / "photos")


def test_images_beside_class_folders_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unsorted photographs above the class folders would be missing from an evaluation, unsaid."""
    fill(tmp_path / "data/cat", {"a.jpg": "JPEG"})
    fill(tmp_path / "data", {"b.jpg": "JPEG", "c.gif": "GIF"})
    (tmp_path / "data/classes.txt").write_text("cat")
    assert len(open_source(tmp_path / "data", labelled=True)) == 1
    assert "1 images; left out: 2 (not in a class folder), 1 .txt (not images)" in capsys.readouterr().out


def test_other_processes_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight processes would print the same line eight times."""
    monkeypatch.setenv("RANK", "3")
    (fill(tmp_path / "photos", {"a.jpg": "JPEG"}) / "b.txt").write_text("")
    open_source(tmp_path / "photos")
    assert capsys.readouterr().out == ""


def test_members_of_shards_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Members without an image's suffix would be left aside unsaid, and again when the index is read from the cache."""
    members = {
        "0.jpg": encoded(),
        "0.seg.png": encoded("PNG"),
        "0.pgm": encoded("PPM"),
        "0.json": b"{}",
        "0.cls": b"1",
    }
    members |= {"._0.jpg": b"x", "README": b"x", "__meta__/info.json": b"{}"}
    path = shard(tmp_path / "t-000.tar", members)
    for _ in range(2):
        assert len(open_source(path)) == 1
        said = capsys.readouterr().out
        for part in (
            "2 (beside the image of their sample)",
            "1 (hidden)",
            "1 .json",
            "1 without a suffix",
            ": 1 images",
        ):
            assert part in said
    with pytest.raises(UserError, match=r"1 of 1 samples have no image but 1 \.cr2 \(camera raw"):
        open_source(shard(tmp_path / "u-000.tar", {"0.cr2": b"x"}))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a b.CR2 cat", r"\.CR2 files are camera raw"),
        ("clips/a.mp4", r"\.mp4 files are films"),
        ("https://host/notes.md 3", r"\.md files are not images"),
    ],
)
def test_lists_say_why_a_line_is_not_an_image(tmp_path: Path, line: str, why: str) -> None:
    """A list of photographs in a format that is not read would be refused without the way to go on."""
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(UserError, match=rf"line 1: .*has no path of an image \({why}"):
        open_source(tmp_path / "list.txt")


def test_fine_tuning_takes_what_opencv_reads(tmp_path: Path) -> None:
    """mmseg would stop in its middle at a .tga, which OpenCV cannot decode, or leave a .jfif out."""
    fill(tmp_path, {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.tga": "TGA", "d.ico": "ICO", "e.jpg": "JPEG"})
    left_out: Counter[str] = Counter()
    assert [path.name for path in list_images(tmp_path, left_out)] == ["a.jfif", "b.jpe", "e.jpg"]
    assert describe_left_out(left_out) == "1 .ico 1 .tga (not read by OpenCV: convert to PNG)"


def test_the_former_suffixes_come_first() -> None:
    """A pretraining on a folder of common formats would be continued on other images, or none of Pillow's be read."""
    assert IMAGE_SUFFIXES[: len(FORMER)] == FORMER
    assert {".jfif", ".gif", ".ppm", ".jp2", ".mpo", ".apng"} <= set(IMAGE_SUFFIXES)
    assert not {".eps", ".ps", ".h5", ".mpg", ".pdf", ".fit", ".pcd", ".wmf", ".txt", ".npy"} & set(
        IMAGE_SUFFIXES
    )


def test_many_suffixes_are_one_line() -> None:
    """A folder of numbered backups would fill the screen."""
    line = describe_left_out(Counter({f".{number}": 1 for number in range(999)} | {".txt": 5, ".md": 0}))
    assert line == "5 .txt 1 .0 1 .1 1 .10 and 996 more suffixes (not images)"


def test_a_resumed_run_keeps_its_list_where_more_suffixes_are_read(
    toy_config: Callable[..., Config], images: Path, tmp_path: Path
) -> None:
    """A pretraining begun before .gif was read would be refused, or go on with other images, after an update."""
    folder = Path(shutil.copytree(images, tmp_path / "photos"))
    options: dict[str, Any] = {"train_cfg__max_iters": 2, "data_root": str(folder)}
    first = build_runner(toy_config(**options))
    first.train()
    before = first.train_dataloader.dataset.source.paths.digest()
    (folder / "00.gif").write_bytes(encoded("GIF"))
    cfg = toy_config(**options)
    cfg.resume, cfg.load_from = True, str(Path(first.work_dir, "latest.pth"))
    resumed = build_runner(cfg)
    resumed.train()
    assert resumed.train_dataloader.dataset.source.paths.digest() == before
    assert len(open_source(folder)) == 18


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    """The extra would be installed, and a phone's photographs still be left out."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    fill(tmp_path / "photos", {"a.HEIC": "HEIF", "b.heif": "HEIF"})
    source = open_source(tmp_path / "photos")
    source.check()
    assert len(source) == 2 and len(source.read(0)) > 100
