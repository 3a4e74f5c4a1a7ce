"""Batches that a device decodes and cuts are the workers' own, whatever files they come from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.data.device_batches import (
    DeviceBatches,
    collate_for_device,
    crops_of,
    one_ahead,
    prepared_ahead,
)
from mst_pretrain.data.device_decode import decode_jpegs, jpeg_for_device, upright
from mst_pretrain.data.pixel_cache import PixelCache
from mst_pretrain.runtime.errors import InvalidValue

CPU = torch.device("cpu")
CROPS: dict[str, Any] = {
    "global_crops": [dict(size=(48, 32)), dict(size=(48, 32), solarize_probability=0.2)],
    "local_crop": dict(size=16, scale=(0.05, 0.4)),
    "local_count": 3,
}
EXIF_ORIENTATION = 0x0112


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colours: no two pixels alike, and a JPEG that keeps them."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """Encoded."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Files of many kinds, upright and turned, one of them far larger than its crops."""
    turned = Image.Exif()
    turned[EXIF_ORIENTATION] = 6
    files = {
        "plain.jpg": jpeg(picture(0, 90, 60)),
        "turned.jpg": jpeg(picture(1, 120, 70), exif=turned),
        "progressive.jpg": jpeg(picture(2, 64, 100), progressive=True, subsampling=0),
        "grey.jpg": jpeg(picture(3, 80, 80).convert("L")),
        "cmyk.jpg": jpeg(picture(4, 70, 50).convert("CMYK")),
        "large.jpg": jpeg(picture(5, 900, 700)),
        "truncated.jpg": jpeg(picture(6, 90, 90))[:-40],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    picture(7, 60, 90).save(tmp_path / "drawn.png")
    return tmp_path


def batches(data: UnlabelledImages, epochs: int = 1) -> dict[str, Any]:
    """Every image of some epochs, one after the other, in one batch."""
    samples = [data[epoch, index] for epoch in range(epochs) for index in range(len(data))]
    if not data.on_device:
        return default_collate(samples)
    return DeviceBatches(data, CPU)(collate_for_device(samples))


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every value of two batches."""
    assert set(found) == set(expected)
    assert found["faults"] == expected["faults"]
    for key in set(expected) - {"faults"}:
        assert torch.equal(found[key], expected[key]), key


@pytest.mark.usefixtures("one_thread")
def test_a_batch_is_what_the_workers_make_of_the_same_files(photos: Path) -> None:
    """Pictures would be turned, skipped, or cut elsewhere where a device decodes them."""
    expected = batches(UnlabelledImages(str(photos), CROPS, seed=3))
    found = batches(UnlabelledImages(str(photos), CROPS, seed=3, decode="device"))
    assert json.loads(expected["faults"][6])[0][1].endswith("truncated.jpg")
    assert_equal(found, expected)
    assert found["global_crops"].transpose(0, 1).is_contiguous()


def test_which_files_a_device_is_given(photos: Path) -> None:
    """It would be given a picture whose colours it reads otherwise, or decode few of those that it can."""
    given = {path.name for path in photos.iterdir() if jpeg_for_device(path.read_bytes())}
    assert given == {"plain.jpg", "turned.jpg", "progressive.jpg", "grey.jpg", "large.jpg"}
    header = jpeg_for_device((photos / "turned.jpg").read_bytes())
    assert header is not None and header.size == (70, 120) and header.orientation == 6


@pytest.mark.usefixtures("one_thread")
def test_a_picture_that_the_device_refuses_goes_the_cpus_way(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such picture would end the run, or take others of its batch with it."""
    refused = (photos / "grey.jpg").read_bytes()

    def choosy(encoded: list[torch.Tensor], mode: Any, device: Any) -> list[torch.Tensor]:
        from torchvision.io import decode_jpeg

        if any(bytes(one.numpy()) == refused for one in encoded):
            raise RuntimeError("nvjpegDecodeBatched failed")
        return decode_jpeg(encoded, mode, device)

    monkeypatch.setattr("mst_pretrain.data.device_decode.decode_jpeg", choosy)
    content = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in (b"\xff\xd8\xff", refused)]
    assert decode_jpegs(content, CPU) == [None, None]
    assert_equal(
        batches(UnlabelledImages(str(photos), CROPS, seed=3, decode="device")),
        batches(UnlabelledImages(str(photos), CROPS, seed=3)),
    )


def test_a_device_that_decodes_nothing_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvJPEG, one thread of the main process would decode every image, without a word."""

    def none(encoded: Any, mode: Any, device: Any) -> Any:
        raise RuntimeError("not compiled with nvJPEG")

    monkeypatch.setattr("mst_pretrain.data.device_decode.decode_jpeg", none)
    data = UnlabelledImages(str(photos), CROPS, seed=3, decode="device")
    with pytest.raises(InvalidValue, match=r"cannot decode a JPEG on 'cpu'.*Choose 'host'"):
        crops_of(DataLoader(data), CPU, print)


@pytest.mark.parametrize(("decode", "cache"), [("device", "host"), ("host", "device"), ("host", "disk")])
def test_a_cache_where_nothing_is_decoded_is_refused_at_once(photos: Path, decode: str, cache: str) -> None:
    """An estimate of the cost would be printed for a run that is refused when it starts."""
    with pytest.raises(InvalidValue, match=f"cache.*'{cache}'"):
        UnlabelledImages(str(photos), CROPS, decode=decode, cache=cache)


@pytest.mark.usefixtures("one_thread")
def test_a_picture_that_breaks_after_its_header_was_read_is_replaced(photos: Path) -> None:
    """Its place in the batch would hold garbage, or its fault would not be told."""
    whole = (photos / "plain.jpg").read_bytes()
    table = whole.index(b"\xff\xc4") + 4  # the first Huffman table: the header and the end are whole
    (photos / "plain.jpg").write_bytes(whole[:table] + b"\xff" * 20 + whole[table + 20 :])
    expected = batches(UnlabelledImages(str(photos), CROPS, seed=3))
    place = sorted(path.name for path in photos.iterdir()).index("plain.jpg")
    assert "plain.jpg" in expected["faults"][place]
    assert_equal(batches(UnlabelledImages(str(photos), CROPS, seed=3, decode="device")), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns(orientation: int) -> None:
    """A photograph would lie on its side or be mirrored."""
    image, exif = picture(0, 5, 3), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    image.info["exif"] = exif.tobytes()
    image.getexif()[EXIF_ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    found = upright(torch.from_numpy(np.array(image)).permute(2, 0, 1), orientation)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("decode", ["host", "device"])
def test_kept_pixels_change_no_sample(photos: Path, decode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample would depend on what was read before, or files would be read although their pixels are there."""
    expected = batches(UnlabelledImages(str(photos), CROPS, seed=3), epochs=3)
    data = UnlabelledImages(str(photos), CROPS, seed=3, decode=decode)
    data.cache = PixelCache(len(data), 10**8, CPU if decode == "device" else None)
    assert_equal(batches(data, 3), expected)
    read: list[int] = []
    original = data.source.read
    monkeypatch.setattr(data.source, "read", lambda index: (read.append(index), original(index))[1])
    assert_equal(batches(data, 3), expected)
    names = {data.source.name(index).rpartition("/")[2] for index in read}
    assert names == {"large.jpg", "truncated.jpg"}  # read again: it is decoded smaller; it is broken


@pytest.mark.usefixtures("one_thread")
def test_a_full_cache_keeps_what_it_has(photos: Path) -> None:
    """A data set that grows beyond its room would write over another image's pixels."""
    expected = batches(UnlabelledImages(str(photos), CROPS, seed=3), epochs=2)
    data = UnlabelledImages(str(photos), CROPS, seed=3)
    data.cache = PixelCache(len(data), 40_000)
    assert_equal(batches(data, 2), expected)
    kept = [size for index in range(len(data)) if (size := data.cache.size(index))]
    assert kept and 3 * sum(width * height for width, height in kept) <= 40_000


@pytest.mark.usefixtures("one_thread")
def test_workers_share_what_one_of_them_has_decoded(photos: Path) -> None:
    """Each worker would decode and keep every image itself."""
    data = UnlabelledImages(str(photos), CROPS, seed=3)
    data.cache = PixelCache(len(data), 10**8)
    order = [(0, index) for index in range(len(data))]
    found = next(iter(DataLoader(data, 8, sampler=order, num_workers=2, collate_fn=default_collate)))
    kept = [name for i in range(8) if data.cache.size(i) and (name := data.source.name(i).rpartition("/")[2])]
    assert sorted(kept) == ["cmyk.jpg", "drawn.png", "grey.jpg", "plain.jpg", "progressive.jpg", "turned.jpg"]
    assert_equal(batches(data), found)


def test_the_next_batch_is_made_while_one_is_used() -> None:
    """The device would wait for its images, or the last batch or an error would be lost."""
    made: list[int] = []

    def make() -> int | None:
        made.append(len(made))
        if made[-1] == 3:
            raise ValueError("broken")
        return made[-1]

    found = []
    with pytest.raises(ValueError, match="broken"):
        for value in one_ahead(make):
            found.append(value)
    assert found == [0, 1, 2]
    numbers = iter([1, 2])
    assert list(one_ahead(lambda: next(numbers, None))) == [1, 2]


def test_the_loader_begins_before_the_first_batch_is_asked_for() -> None:
    """It draws a random number when it begins, which must not fall between two steps."""
    begun: list[bool] = []

    class Loader:
        def __iter__(self) -> Any:
            begun.append(True)
            return iter([{"a": 1}])

    prepared = prepared_ahead(Loader(), lambda batch: {**batch, "b": 2}, CPU)
    assert begun == [True]
    assert list(prepared) == [{"a": 1, "b": 2}]
