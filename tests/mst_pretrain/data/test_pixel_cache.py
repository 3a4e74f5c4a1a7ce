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
        ("auto", CPU, 4 * BYTES - 4, "none"),
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
    for place, device in (("device", None), ("host", CPU)):
        with pytest.raises(InvalidValue, match=f"cache='{place}' does not go with decode="):
            choose_cache(place, source, device)
    for place, device in (("host", None), ("device", CPU)):
        assert choose_cache("auto", source, device, start_method="spawn")[0] is None
        with pytest.raises(InvalidValue, match="mp_start_method='fork'"):
            choose_cache(place, source, device, start_method="spawn")
    monkeypatch.setattr(pixel_cache.multiprocessing, "get_start_method", lambda: "spawn")
    assert choose_cache("auto", source, None)[0] is None


@pytest.mark.parametrize("version", [1, 2])
def test_memory_of_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """In a container or a job with 8 of 512 GiB, the cache would end the run."""
    whole = free_memory()
    assert 2**20 < whole
    names = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    job = tmp_path / ("" if version == 2 else "memory") / "slurm" / "job"
    (job / "step").mkdir(parents=True)
    (tmp_path / "own").write_text(
        "0::/slurm/job/step\n" if version == 2 else "9:cpu:/\n4:memory:/slurm/job/step\n"
    )
    monkeypatch.setattr(pixel_cache, "CGROUP", tmp_path)
    monkeypatch.setattr(pixel_cache, "OWN_GROUPS", tmp_path / "own")
    (job / names[0]).write_text("max\n")
    (job / names[1]).write_text("600\n")
    (job / "memory.stat").write_text("anon 500\ninactive_file 100\ntotal_inactive_file 100\n")
    assert free_memory() == pytest.approx(whole, rel=0.2)
    (job / names[0]).write_text("1000\n")
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
