"""The doctor: machine, data and plan, looked at before anything is trained."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.terminal import shown_message

from .facts import free_disk, machine
from .starts import RANDOM

if TYPE_CHECKING:
    from .layouts import Found

OK, NOTE, WARN, FAULT = "ok", "note", "warn", "FAULT"
MOST_FAULTS = 10  # shown by name
LITTLE_DISK = 10.0  # GiB
SLOW_DISK = 60.0  # MB/s
READ_AT_MOST = 64 * 2**20
STACKS = (("mmdet", ("onedl-mmdetection", "mmdet")), ("mmseg", ("onedl-mmsegmentation", "mmsegmentation")))

Line = tuple[str, str]


def doctor(
    target: str | Path | None,
    task: str | None,
    init: str | Path | None,
    arch: str | None,
    batch_size: int | None,
    image_size: int | None,
    gpus: int,
    boxes_only: bool,
    quick: bool,
) -> int:
    """See :func:`mst_toolkit.api.doctor`."""
    lines = list(show("System", system(Path(str(target)) if target is not None else Path("."))))
    if target is not None and str(target).endswith(".py"):
        lines += show("Config", config(Path(target)))
    elif target is not None:
        asked = dict(batch_size=batch_size, image_size=image_size, gpus=gpus, boxes_only=boxes_only)
        lines += data_and_plan(target, task, init, arch, asked, quick)
    faults, warnings = (sum(kind == wanted for kind, _ in lines) for wanted in (FAULT, WARN))
    print(f"{faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}", flush=True)
    return faults


def show(section: str, lines: Iterable[Line]) -> Iterator[Line]:
    """Print the lines of a section as they come, and hand them on; an error becomes a fault."""
    try:
        for kind, text in lines:
            print(f"{section:7} {kind:5} {shown_message(text)}", flush=True)
            section = ""
            yield kind, text
    except UserError as error:
        text = " ".join(str(error).split())
        print(f"{section:7} {FAULT:5} {shown_message(text)}", flush=True)
        yield FAULT, text


def system(place: Path) -> Iterator[Line]:
    """Versions, devices and disks."""
    import timm
    import torch

    cuda = f" (CUDA {torch.version.cuda})" if torch.cuda.is_available() else ""
    names = [f"Python {platform.python_version()}", f"PyTorch {torch.__version__.split('+')[0]}{cuda}"]
    names.append(f"timm {timm.__version__}")
    missing = []
    for name, distributions in STACKS:
        found = [(one, version(one)) for one in distributions if version(one)]
        if not found:
            missing.append(name)
            continue
        one, number = found[0]
        names.append(f"{name} {number}{' (onedl)' if one.startswith('onedl') else ''}")
    yield OK, ", ".join(names)
    if missing:
        yield WARN, f"{' and '.join(missing)} missing: fine-tuning needs pip install 'mst-toolkit[transfer]'"
    here = machine()
    yield OK, here.line()
    if here.apple:
        yield NOTE, "the Apple GPU is not used for training; docs/platforms.md says what works"
    if here.memory is not None:
        yield OK, f"{here.memory:.1f} GB of memory free"
    disk = free_disk(Path("runs").resolve())
    yield (WARN if disk < LITTLE_DISK else OK), f"{disk:.0f} GB of disk free where runs are written"
    if place.is_dir() and (speed := read_speed(place)) is not None and speed < SLOW_DISK:
        yield (
            WARN,
            f"the data disk reads {speed:.0f} MB/s: training may wait for images. Copy the data to a local disk.",
        )


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


def config(path: Path) -> Iterator[Line]:
    """A full config: everything that a training checks before its first step."""
    from mst_pretrain.runtime.config import load_config
    from mst_pretrain.training.launch import check_pretraining

    cfg = load_config(path)
    if "mst_transfer" in cfg.get("custom_imports", {}).get("imports", []):
        from mst_transfer.data.coco_file import parsing_once
        from mst_transfer.training.checks import check_training

        with parsing_once():
            check_training(cfg)
    else:
        check_pretraining(cfg)
    yield OK, f"{path}: data, classes, weights and lengths fit together"


def data_and_plan(
    target: str | Path,
    task: str | None,
    init: str | Path | None,
    arch: str | None,
    asked: dict[str, Any],
    quick: bool,
) -> list[Line]:
    """What is found in the data, every file that cannot be used, and what a run would do."""
    from . import layouts

    recognised: list[Found] = []

    def look() -> Iterator[Line]:
        wanted = "photos" if task == "pretrain" else task
        found = layouts.recognise(target, wanted, boxes_only=asked["boxes_only"])
        if found.task != "photos" and found.val is None:
            found = layouts.split(found, 0)
        recognised.append(found)
        yield OK, layouts.line(found)
        yield from ((NOTE, text) for text in found.notes)
        yield from ((WARN, text) for text in found.warnings)
        faults = layouts.check(found)
        for fault in faults[:MOST_FAULTS]:
            yield (WARN if fault.warning else FAULT), str(fault)
        if len(faults) > MOST_FAULTS:
            yield FAULT, f"and {len(faults) - MOST_FAULTS} more files like these"

    lines = list(show("Data", look()))
    if recognised:
        lines += show("Plan", plan(recognised[0], target, init, arch, asked, quick))
    return lines


def plan(
    found: Found,
    target: str | Path,
    init: str | Path | None,
    arch: str | None,
    asked: dict[str, Any],
    quick: bool,
) -> Iterator[Line]:
    """What a run would do, and how long it would take."""
    from . import training
    from .starts import fetched, find_start
    from .timing import seconds_per_step

    common = dict(epochs=None, steps=None, hours=None, precision="auto", workers=None, seed=0, cfg_options=())
    with tempfile.TemporaryDirectory(prefix="mst_") as temporary:
        if found.task == "photos":
            made, cfg = training.pretraining_plan(
                target, {**common, **asked, "init": init, "arch": arch or "vit_small"}
            )
        else:
            if init is None:
                yield NOTE, "no --init: planned from random weights"
            start = fetched(find_start(init or RANDOM, arch), Path(temporary))
            made, cfg = training.finetuning_plan(
                found, start, Path(temporary, "run"), {**common, **asked}, write=True
            )
        batch = made["batch_size"] * made["gpus"]
        text = f"{made.title}: {made['steps']:,} steps of {batch} images, {made['precision']}"
        if quick:
            yield OK, f"{text} (--quick: no step was timed)"
            return
        seconds = seconds_per_step(cfg, asked["gpus"])
    yield (
        OK,
        f"{text}, about {span(seconds * made['steps'])} here ({seconds:.2g} s a step, validations not counted)",
    )


def span(seconds: float) -> str:
    """For people: ``1 h 20 min``."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "1 min"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"
