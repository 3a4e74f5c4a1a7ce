"""Where decoded images are kept, and how much of the memory they may take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mst_pretrain.data import pixel_cache
from mst_pretrain.data.pixel_cache import PixelCache, choose_cache, estimated_bytes, free_memory
from mst_pretrain.data.sources import ImageSource, open_source
from mst_pretrain.runtime.errors import InvalidValue

CPU = torch.device("cpu")
BYTES = 3 * (40 * 30 + 20 * 10) // 2 * 4  # of four images


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    """Four small photographs and one that is none."""
    for number, size in enumerate([(40, 30), (20, 10)] * 2):
        Image.new("RGB", size, "red").save(tmp_path / f"{number}.jpg")
    return open_source(tmp_path)


def test_the_size_is_told_by_a_few_headers(source: ImageSource, tmp_path: Path) -> None:
    """A data set of photographs would be taken for a small one, or a broken file would end the run before it began."""
    assert estimated_bytes(source) == BYTES
    (tmp_path / "0.jpg").write_bytes(b"no picture")
    assert estimated_bytes(source) == BYTES - 3 * 40 * 30


@pytest.mark.parametrize(
    ("place", "device", "free", "chosen"),
    [
        ("auto", None, 4 * BYTES, "host"),
        ("auto", None, 4 * BYTES - 4, "none"),
        ("auto", CPU, 4 * BYTES, "device"),
        ("none", CPU, 4 * BYTES, "none"),
        ("host", None, 2 * BYTES, "host"),
        ("host", CPU, 4 * BYTES, "host"),
        ("device", CPU, 2 * BYTES, "device"),
    ],
)
def test_what_is_chosen(
    source: ImageSource,
    place: str,
    device: torch.device | None,
    free: int,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run would take memory that others need, or keep nothing although there is room."""
    monkeypatch.setattr(pixel_cache, "free_memory", lambda: free)
    cache, why = choose_cache(place, source, device)
    assert (cache is None) == (chosen == "none") and f"cache='{place}'" in why
    if cache is not None:
        assert (cache.device is not None) == (chosen == "device")
        assert chosen in why and cache.capacity <= free // 4


def test_processes_of_one_machine_share_its_memory(
    source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of them would take twice the memory that there is."""
    monkeypatch.setattr(pixel_cache, "free_memory", lambda: 4 * BYTES)
    assert choose_cache("auto", source, None, processes=1)[0] is not None
    assert choose_cache("auto", source, None, processes=2)[0] is None


def test_impossible_places_are_refused(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would be kept, without a word."""
    with pytest.raises(InvalidValue, match="cache is 'ram'; choose one of none, host, device, auto"):
        choose_cache("ram", source, None)
    with pytest.raises(InvalidValue, match="cache='device' needs decode='device'"):
        choose_cache("device", source, None)
    monkeypatch.setattr(pixel_cache.multiprocessing, "get_start_method", lambda: "spawn")
    assert choose_cache("auto", source, None)[0] is None
    with pytest.raises(InvalidValue, match="mp_start_method='fork'"):
        choose_cache("host", source, None)


def test_memory_of_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container with 8 of 512 GiB, the cache would end the run."""
    whole = free_memory()
    assert 2**20 < whole
    monkeypatch.setattr(pixel_cache, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    assert free_memory() == pytest.approx(whole, rel=0.2)
    (tmp_path / "memory.max").write_text("1000\n")
    assert free_memory() == 500


def test_pixels_come_back_as_they_were() -> None:
    """An image would be another one's, or its rows and columns exchanged."""
    images = [torch.randint(0, 256, (3, 4 + i, 7), dtype=torch.uint8) for i in range(3)]
    for device in (None, CPU):
        cache = PixelCache(3, 1000, device)
        for index in (2, 0, 1, 1):
            assert index != 1 or cache.size(2) == (7, 6)
            cache.put(index, images[index])
        assert all(torch.equal(cache.get(index), images[index]) for index in range(3))
