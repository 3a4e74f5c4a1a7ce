"""The installation: versions that go together, what the GPUs run on, and packages that are there twice."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mst_pretrain.runtime.extras import is_installed

from ..facts import free_disk, machine
from ..findings import FAULT, NOTE, OK, WARN, Line

LITTLE_DISK = 10.0  # GiB
SLOW_DISK = 60.0  # MB/s
READ_AT_MOST = 64 * 2**20
DRIVER = Path("/proc/driver/nvidia/version")
# import name -> distributions that bring the same files
OWNERS = {
    "mmengine": ("onedl-mmengine", "mmengine", "mmengine-lite"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite", "mmcv-full"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
    "cv2": (
        *("opencv-python-headless", "opencv-python"),
        *("opencv-contrib-python", "opencv-contrib-python-headless"),
    ),
}
SHOWN = ("mmcv", "mmdet", "mmseg", "mmengine")


def system(place: Path | None, runs: bool = True) -> Iterator[Line]:
    """Versions, devices, operators and disks.

    Args:
        place: The data, whose disk is read where it is a folder; None: nothing is read.
        runs: Whether the disk of ``runs`` is one that will be written.
    """
    yield from versions()
    yield from builds()
    yield from operators()
    yield from doubles()
    here = machine()
    yield OK, here.line()
    if here.apple:
        yield NOTE, "the Apple GPU is not used for training; docs/platforms.md says what works"
    if here.memory is not None:
        yield OK, f"{here.memory:.1f} GB of memory free"
    if runs:
        disk = free_disk(Path("runs").resolve())
        yield (WARN if disk < LITTLE_DISK else OK), f"{disk:.0f} GB of disk free where runs are written"
    if (
        place is not None
        and place.is_dir()
        and (speed := read_speed(place)) is not None
        and speed < SLOW_DISK
    ):
        yield (
            WARN,
            f"the data disk reads {speed:.0f} MB/s: training may wait for images. Copy the data to a local disk.",
        )


def versions() -> Iterator[Line]:
    """Of Python, the operating system and the packages; what fine-tuning lacks is a warning."""
    import timm
    import torch
    import torchvision

    names = [f"Python {platform.python_version()}", f"PyTorch {torch.__version__.split('+')[0]}"]
    names += [f"torchvision {torchvision.__version__.split('+')[0]}", f"timm {timm.__version__}"]
    for package in SHOWN:
        found = installed(package)
        if found and is_installed(package):
            brand = " (onedl)" if found[0].startswith("onedl") else ""
            names.append(f"{package} {version(found[0])}{brand}")
    yield OK, f"{', '.join(names)}; {platform.system()} {platform.release()}"
    missing = [package for package in SHOWN if not is_installed(package)]
    if missing:
        yield (
            WARN,
            f"{' and '.join(missing)} missing: fine-tuning needs pip install 'mst-toolkit[transfer]', or, with "
            "OpenMMLab's own packages, pip install 'mst-toolkit[openmmlab]'",
        )


def builds() -> Iterator[Line]:
    """Whether PyTorch and torchvision were built for one CUDA, and PyTorch for the GPU that is there."""
    import torch
    import torchvision

    driver = driver_version()
    own, other = torch.version.cuda, dotted(getattr(torchvision.version, "cuda", None))
    if not torchvision.extension._has_ops():
        yield (
            FAULT,
            f"torchvision {torchvision.__version__} cannot load its operators beside PyTorch {torch.__version__}: they "
            "were built for different versions. Install both in one command: pip install -U torch torchvision",
        )
    elif own != other:
        yield (
            WARN,
            f"PyTorch was built for CUDA {own or 'none'} and torchvision for CUDA {other or 'none'}: NMS and RoIAlign "
            "may fail on a GPU. Install both in one command: pip install -U torch torchvision",
        )
    built = f"CUDA {own}" if own else f"ROCm {torch.version.hip}" if torch.version.hip else "the CPU alone"
    yield OK, f"PyTorch and torchvision built for {built}" + (f"; NVIDIA driver {driver}" if driver else "")
    if driver and not torch.cuda.is_available():
        why = "the driver is older than this CUDA, or CUDA_VISIBLE_DEVICES hides every GPU"
        if own is None:
            why = "this PyTorch was built without CUDA"
        yield (
            WARN,
            f"there is an NVIDIA GPU, and PyTorch cannot use it: {why}. Training would run on the CPU; see "
            "https://pytorch.org/get-started/locally",
        )


def dotted(cuda: str | int | None) -> str | None:
    """A version of CUDA as PyTorch writes it, of the number that torchvision has: 13.0 of 13000, None of -1."""
    if isinstance(cuda, int):
        return f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda > 0 else None
    return cuda


def driver_version(path: Path = DRIVER) -> str | None:
    """Of NVIDIA's kernel driver, or None where there is none."""
    if not path.is_file():
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", path.read_text())
    return found[1] if found else "unknown"


def operators() -> Iterator[Line]:
    """Where mmcv's operators come from: its own compiled ones, torchvision's kernels, or nowhere."""
    if not is_installed("mmcv"):
        return
    spec = find_spec("mmcv._ext")
    if spec is None or spec.loader is None:  # the latter: mst_transfer has put torchvision's there
        yield (
            OK,
            "mmcv's operators: torchvision's kernels (NMS and RoIAlign; others raise when they are called)",
        )
        return
    try:
        importlib.import_module("mmcv._ext")
    except ImportError as error:
        yield (
            FAULT,
            f"mmcv's compiled operators cannot be loaded ({error}): they were built for another PyTorch. Install one "
            "without them, for which torchvision's are used: pip install --force-reinstall --no-deps onedl-mmcv",
        )
        return
    yield OK, "mmcv's operators: its own, compiled"


def doubles() -> Iterator[Line]:
    """Packages whose files two distributions own, or of which two versions are on the path."""
    for package in OWNERS:
        found = installed(package)
        if len(found) > 1:
            remedy = f"pip uninstall -y {' '.join(found)} && pip install {found[0]}"
            yield (
                WARN if package == "cv2" else FAULT,
                f"{' and '.join(f'{name} {version(name)}' for name in found)} are both installed and own the same "
                f"files of '{package}'. Keep one: {remedy}",
            )
        elif found and not is_installed(package):
            yield (
                FAULT,
                f"{found[0]} is installed, but its package '{package}' is not there. Put it back: pip install "
                f"--force-reinstall --no-deps {found[0]}",
            )
    several: defaultdict[str, dict[str, str]] = defaultdict(dict)
    wanted = {owner for owners in OWNERS.values() for owner in owners} | {
        "torch",
        "torchvision",
        "timm",
        "numpy",
    }
    for one in importlib.metadata.distributions():
        name = str(one.metadata["Name"] or "").lower().replace("_", "-")
        if name in wanted:
            several[name].setdefault(one.version, str(one.locate_file("")))
    for name, places in several.items():
        if len(places) > 1:
            listing = ", ".join(f"{number} in {place}" for number, place in places.items())
            yield (
                WARN,
                f"{name} is installed in several versions ({listing}): the first is used. Remove the others, or look "
                "at PYTHONPATH.",
            )


def installed(package: str) -> list[str]:
    """The distributions that are installed of those that own a package."""
    return [name for name in OWNERS[package] if version(name) is not None]


def version(distribution: str) -> str | None:
    """Of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_speed(folder: Path) -> float | None:
    """MB/s at which files of a folder are read; None where they are too few to tell."""
    total, began = 0, time.monotonic()
    for path in folder.rglob("*"):
        if path.is_file():
            total += len(path.read_bytes())
        if total > READ_AT_MOST or time.monotonic() - began > 3:
            break
    seconds = time.monotonic() - began
    return total / 1e6 / seconds if total > 4e6 and seconds > 0 else None
