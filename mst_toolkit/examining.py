"""The doctor: machine, data and plan, looked at before anything is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_pretrain.runtime.errors import UserError

from .findings import FAULT, NOTE, OK, WARN, Diagnosis, Line
from .starts import RANDOM

if TYPE_CHECKING:
    from .layouts import Found

MOST_FAULTS = 10  # shown by name


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
    out: str | Path | None,
    report: str | Path | None,
    cfg_options: Sequence[str],
) -> int:
    """See :func:`mst_toolkit.api.doctor`."""
    from .preflight.installation import system
    from .training import check_gpus

    if not quick:  # a plan alone may be one for another machine
        check_gpus(gpus)
    if target is not None and str(target).endswith(".py"):
        unread = {"--task": task, "--init": init, "--arch": arch, "--batch-size": batch_size}
        unread |= {"--image-size": image_size, "--boxes-only": boxes_only, "--quick": quick}
        if given := [name for name, value in unread.items() if value]:
            raise UserError(
                f"{', '.join(given)}: a config says that itself. Change it with --cfg-options KEY=VALUE, for example "
                "train_dataloader.batch_size=8."
            )
        return examine_config(Path(target), gpus, out, report, cfg_options)
    if cfg_options or out is not None:
        raise UserError(
            "--cfg-options and --out are those of a config, and none is given: mst doctor CONFIG.py --out DIR"
        )
    diagnosis = Diagnosis()
    diagnosis.show("System", system(Path(str(target)) if target is not None else None))
    if target is not None:
        asked = dict(batch_size=batch_size, image_size=image_size, gpus=gpus, boxes_only=boxes_only)
        data_and_plan(diagnosis, target, task, init, arch, asked, quick)
    print(diagnosis.summary(), flush=True)
    if report is not None:
        diagnosis.write(Path(report))
    return diagnosis.faults


def examine_config(
    path: Path, gpus: int, out: str | Path | None, report: str | Path | None, options: Sequence[str]
) -> int:
    """The dry run of a config, in processes as a run has them.

    Raises:
        UserError: They did not come to the end.
    """
    from .timing import dry_run

    words = ["--report", str(report)] if report is not None else []
    words += ["--work-dir", str(out)] if out is not None else []
    words += ["--cfg-options", *options] if options else []
    code = dry_run(path, gpus, words)
    if code < 0:
        raise UserError(killed(-code))
    return code


def killed(number: int) -> str:
    """What to say of a dry run that a signal has ended."""
    if number == 9:
        return (
            "the dry run was killed (SIGKILL), as the system does where the main memory is full. Use a smaller "
            "train_dataloader.batch_size or num_workers, ask the batch system for more memory, or leave out "
            "train_dataloader.dataset.cache"
        )
    if number == 7:
        return "the dry run ended with a bus error (SIGBUS): shared memory is full. Make /dev/shm larger (--shm-size)."
    return f"the dry run was ended by signal {number}. Start it again."


def data_and_plan(
    diagnosis: Diagnosis,
    target: str | Path,
    task: str | None,
    init: str | Path | None,
    arch: str | None,
    asked: dict[str, Any],
    quick: bool,
) -> None:
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

    diagnosis.show("Data", look())
    if recognised:
        diagnosis.show("Plan", plan(diagnosis, recognised[0], target, init, arch, asked, quick))


def plan(
    diagnosis: Diagnosis,
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
    from .timing import rehearsed

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
            yield OK, f"{text} (--quick: no step was made)"
            return
        yield OK, text
        tried = rehearsed(cfg, asked["gpus"])
    diagnosis.measured |= tried["measured"]
    for line in tried["lines"]:
        if line["section"] != "System":
            diagnosis.add(line["section"], line["kind"], line["text"])
