"""Decoded images that stay in memory: a small data set is decoded once and not in every epoch."""

from __future__ import annotations

import io
import mmap
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..runtime.errors import InvalidValue, UnusableImage
from .decode import Undecodable, reading
from .sources import ImageSource

PLACES = ("none", "host", "device", "auto")
SHARE = 0.25  # of the memory that is free when a run begins
SAMPLED = 256  # images by which the size of a data set is estimated
ENTRY = np.dtype([("start", np.int64), ("height", np.int32), ("width", np.int32)])
CGROUP = Path("/sys/fs/cgroup")


class PixelCache:
    """Decoded images by index, in memory that all processes forked from this one share.

    An image is kept when it is first decoded, as long as there is room; nothing is ever put out. On a device, the
    pixels belong to the process that puts them there, and the others see which there are.

    Args:
        images: Number of images.
        capacity: Bytes of pixels.
        device: None for the host's memory.
    """

    def __init__(self, images: int, capacity: int, device: torch.device | None = None) -> None:
        self.capacity, self.device = capacity, device
        self._entries = np.frombuffer(mmap.mmap(-1, max(images, 1) * ENTRY.itemsize), ENTRY)
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._lock = multiprocessing.Lock()
        # Pages are taken from the system when they are first written
        self._pixels = (
            None if device else torch.frombuffer(mmap.mmap(-1, max(capacity, 1)), dtype=torch.uint8)
        )

    def size(self, index: int) -> tuple[int, int] | None:
        """(width, height) of an image that is kept, else None."""
        entry = self._entries[index]
        return (int(entry["width"]), int(entry["height"])) if entry["height"] else None

    def get(self, index: int) -> Tensor:
        """Pixels of an image that is kept, [3, H, W] uint8; they are not to be changed."""
        return self._place(*self._entries[index].item())

    def put(self, index: int, pixels: Tensor) -> None:
        """Keep an image, [3, H, W] uint8, if there is room."""
        with self._lock:
            start = int(self._used[0])
            if self._entries[index]["height"] or start + pixels.numel() > self.capacity:
                return
            self._used[0] = start + pixels.numel()
        if self._pixels is None:
            self._pixels = torch.empty(self.capacity, dtype=torch.uint8, device=self.device)
        _, height, width = pixels.shape
        self._place(start, height, width).copy_(pixels)
        with self._lock:  # whoever sees the height finds the pixels
            self._entries[index]["start"], self._entries[index]["width"] = start, width
            self._entries[index]["height"] = height

    def _place(self, start: int, height: int, width: int) -> Tensor:
        """The memory of an image as [3, H, W]: on the host a pixel's channels lie together, on a device its rows do."""
        assert self._pixels is not None
        pixels = self._pixels[start : start + 3 * height * width]
        return (
            pixels.view(3, height, width) if self.device else pixels.view(height, width, 3).permute(2, 0, 1)
        )


def choose_cache(
    place: str, source: ImageSource, device: torch.device | None, processes: int = 1
) -> tuple[PixelCache | None, str]:
    """The cache that a run is to have, and a sentence that says why.

    Args:
        place: ``none``, ``host`` or ``device``; ``auto``: on the device or else the host, where all images fit into
            ``SHARE`` of its free memory. One that is asked for by name holds as many as do.
        source: The images.
        device: A GPU that decoded images are on, or None where they are cut on the CPU.
        processes: That share the host's memory, each with a cache of its own.

    Raises:
        InvalidValue: The place is unknown, or on a device that no image is on, or cannot be shared with workers.
    """
    if place not in PLACES:
        raise InvalidValue(f"cache is '{place}'; choose one of {', '.join(PLACES)}")
    if place == "device" and device is None:
        raise InvalidValue("cache='device' needs decode='device'; choose 'host', 'auto' or 'none'")
    if place == "none":
        return None, "Decoded images are not kept (cache='none')."
    forks = multiprocessing.get_start_method() == "fork"
    if place == "host" and not forks:
        raise InvalidValue(
            "cache='host' needs env_cfg.mp_cfg.mp_start_method='fork', by which workers share memory; choose 'none'"
        )
    needed = estimated_bytes(source)
    room = {"device": 0, "host": int(SHARE * free_memory() / processes) if forks else 0}
    if device is not None:
        room["device"] = int(
            SHARE * (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory())
        )
    where = [
        name
        for name in ("device", "host")
        if place in (name, "auto") and (place == name or needed <= room[name])
    ]
    figures = f"about {needed / 2**30:.2f} GiB decoded, {room[where[0] if where else 'host'] / 2**30:.2f} GiB allowed"
    if not where:
        return None, f"Decoded images are not kept: {figures} (cache='{place}')."
    cache = PixelCache(
        len(source), min(room[where[0]], int(1.25 * needed) + 2**20), device if where[0] == "device" else None
    )
    return cache, f"Decoded images are kept in the memory of the {where[0]}: {figures} (cache='{place}')."


def estimated_bytes(source: ImageSource) -> int:
    """Of all decoded images, from the headers of a few; those that cannot be read count as none."""
    total, some = 0, np.unique(np.linspace(0, len(source) - 1, SAMPLED).astype(int))
    for index in some.tolist():
        try:
            with reading(), Image.open(io.BytesIO(source.read(index))) as image:
                total += 3 * image.width * image.height
        except (Undecodable, UnusableImage):
            continue
    return total * len(source) // len(some)


def free_memory() -> int:
    """Bytes that this process may still take from the host: of the machine, or of its control group.

    0 where the system does not tell: outside Linux.
    """
    try:
        free = 1024 * _figure(Path("/proc/meminfo"), "MemAvailable:")
    except (OSError, StopIteration):
        return 0
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        return min(free, max(limit - used + _figure(CGROUP / "memory.stat", "inactive_file"), 0))
    except (OSError, StopIteration, ValueError):  # no control group, or one without a limit
        return free


def _figure(path: Path, name: str) -> int:
    """The number behind a name in a file of the system."""
    return next(int(words[1]) for line in path.read_text().splitlines() if (words := line.split())[0] == name)
