"""Decoded images that stay in memory: a small data set is decoded once and not in every epoch."""

from __future__ import annotations

import io
import mmap
import multiprocessing
import sys
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
CGROUP, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


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
    place: str,
    source: ImageSource,
    device: torch.device | None,
    processes: int = 1,
    start_method: str | None = None,
) -> tuple[PixelCache | None, str]:
    """The cache that a run is to have, and a sentence that says why.

    Args:
        place: ``none``; ``host``, or ``device`` where images are decoded there; ``auto``: whichever of these it is, if
            all images fit into ``SHARE`` of its free memory. One that is asked for by name holds as many as do.
        source: The images.
        device: A GPU that decoded images are on, or None where they are cut on the CPU.
        processes: How many share the host's memory. Each has its own cache.
        start_method: Of the workers; None: the default.

    Raises:
        InvalidValue: The place is unknown, or on a device that no image is on, or cannot be shared with workers.
    """
    own = "host" if device is None else "device"
    check_place(place, own)
    if place == "none":
        return None, "Decoded images are not kept (cache='none')."
    possible = "fork" in multiprocessing.get_all_start_methods()  # not on Windows, whatever the config says
    forks = possible and (start_method or multiprocessing.get_start_method()) == "fork"
    if place != "auto" and not forks:
        raise InvalidValue(
            f"cache='{place}' needs workers that are forked (env_cfg.mp_cfg.mp_start_method='fork'; not on Windows), "
            "which share memory; choose 'none'"
        )
    needed = estimated_bytes(source)
    on_gpu = device is not None and device.type == "cuda"
    room = (
        int(SHARE * (torch.cuda.mem_get_info(device)[0] if on_gpu else free_memory() / processes))
        if forks
        else 0
    )
    figures = f"about {needed / 2**30:.2f} GiB decoded, {room / 2**30:.2f} GiB allowed"
    if place == "auto" and needed > room:
        return None, f"Decoded images are not kept: {figures} (cache='auto')."
    cache = PixelCache(len(source), min(room, int(1.25 * needed) + 2**20), device)
    return cache, f"Decoded images are kept in the memory of the {own}: {figures} (cache='{place}')."


def check_place(place: str, own: str) -> None:
    """Refuse a place that is unknown, or where no image is decoded.

    Args:
        place: As :func:`choose_cache` takes it.
        own: Where images are decoded, ``host`` or ``device``.

    Raises:
        InvalidValue: It is such a place.
    """
    if place not in PLACES:
        raise InvalidValue(f"cache is '{place}'; choose one of {', '.join(PLACES)}")
    if place not in (own, "auto", "none"):
        raise InvalidValue(
            f"cache='{place}' does not go with decode='{own}'; choose '{own}', 'auto' or 'none'"
        )


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
    """Bytes that this process may still take from the host: of the machine, or of its control groups.

    0 where the system does not tell: outside Linux.
    """
    try:
        free = 1024 * _figure(Path("/proc/meminfo"), "MemAvailable:")
    except (OSError, StopIteration):
        return 0
    return min([free, *map(_room_of, _control_groups())])


def _control_groups() -> list[Path]:
    """Folders of the process's groups, each with those that it lies in, by either version of control groups."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = CGROUP / controllers
            own = top / path.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    return folders


def _room_of(folder: Path) -> int:
    """Bytes that a control group may still take; what it holds of files counts as free."""
    for limit, used, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = (int((folder / name).read_text()) for name in (limit, used))
            return max(most - now + _figure(folder / "memory.stat", files), 0)
        except (OSError, StopIteration, ValueError):  # no such group, or one without a limit
            continue
    return sys.maxsize


def _figure(path: Path, name: str) -> int:
    """The number behind a name in a file of the system."""
    return next(int(words[1]) for line in path.read_text().splitlines() if (words := line.split())[0] == name)
