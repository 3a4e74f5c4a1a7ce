"""The dry run of a config, in each of its processes: everything that a run needs, tried before its first hour."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from mmengine.config import Config
from torch import distributed

from mst_pretrain.runtime.config import import_custom_modules
from mst_pretrain.runtime.distributed import rank, world_size
from mst_pretrain.training.launch import check_pretraining
from mst_pretrain.training.processes import launcher_of

from ..findings import OK, Diagnosis, Line
from .installation import system
from .ranks import differences, gather, identity, meet, share
from .sample import Sampled, sample
from .steps import for_loading, steps


def dry_run(read: Callable[[], Config], launcher: str, report: str | Path | None = None) -> int:
    """Try everything that a run of a config needs, and say what was found and how long it takes.

    Args:
        read: Gives the config, prepared for a run.
        launcher: ``--launcher``.
        report: A JSON file for what is found.

    Returns:
        The number of faults; 0 in every process but the first where all have come to the end.
    """
    launcher = launcher_of(launcher)
    first = int(os.environ.get("RANK", "0")) == 0 or launcher == "none"
    diagnosis = Diagnosis(prints=first)
    with nullcontext() if first else redirect_stdout(io.StringIO()):
        examine(diagnosis, read, launcher)
    if first:
        print(diagnosis.summary(), flush=True)
        if report:
            diagnosis.write(Path(report))
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return diagnosis.faults


def examine(diagnosis: Diagnosis, read: Callable[[], Config], launcher: str) -> None:
    """All sections, as far as a fault lets a run come."""
    diagnosis.show("System", system(None, runs=False))
    if not diagnosis.show("Ranks", meet(launcher)):
        return
    configs: list[Config] = []
    found: list[Sampled] = []
    if diagnosis.show("Config", config(read, configs)) and configs:
        diagnosis.show("Data", sample(configs[0], rank(), found))
        if found:
            diagnosis.show("Limits", for_loading(found[0]))
    share(diagnosis, 0)
    everyone = gather(identity(configs[0].pretty_text, found[0].data) if found else None)
    if any(one is None for one in everyone):
        return
    if world_size() > 1:
        diagnosis.show("Ranks", differences(everyone))
    if diagnosis.faults:
        return
    if not diagnosis.show("Steps", steps(diagnosis, configs[0], found[0])) and not diagnosis.prints:
        # The others may wait for this process, and cannot ask it any more.
        print(f"FAULT process {rank()}: {diagnosis.lines[-1][2]}", file=sys.__stdout__, flush=True)


def config(read: Callable[[], Config], found: list[Config]) -> Iterator[Line]:
    """The config as a run has it, and all that a run checks before it builds anything."""
    cfg = read()
    object.__setattr__(cfg, "_format_python_code", False)  # it takes seconds
    if "mst_transfer" in cfg.get("custom_imports", {}).get("imports", []):
        from mst_transfer.data.coco_file import parsing_once
        from mst_transfer.training.checks import check_training, import_data_sets

        with parsing_once():
            import_data_sets(cfg)
            check_training(cfg)
    else:
        check_pretraining(cfg)
        import_custom_modules(cfg)
    found.append(cfg)
    yield OK, f"{cfg.filename}: data, classes, weights and lengths fit together"
