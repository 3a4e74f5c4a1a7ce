"""Pretraining and fine-tuning: facts, plan, config, and the training itself as a process of its own.

The training is ``tools/train.py`` on the run's own ``config.py``: what a friendly call does can be done again, resumed
and started under Slurm without it, and its memory is free again when it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_pretrain.runtime.atomic import file_sha256, write_json, write_text
from mst_pretrain.runtime.errors import STOPPED, Stopped, UserError
from mst_pretrain.runtime.run_files import LOG, METRICS
from mst_pretrain.runtime.terminal import shown_message

from .facts import machine
from .layouts import left_out
from .plan import RunPlan, check_lengths
from .resources import child_environment, resources
from .runs import CHECKPOINTS, CONFIG, LAST, PLAN
from .starts import RANDOM, Start, fetched, find_start, model_named

if TYPE_CHECKING:
    from mmengine.config import Config

    from .layouts import FileFault, Found

RUNS = Path("runs")
USED = "images.txt"  # the photos that are read, where --skip-broken leaves some out


def pretrain(data: str | Path, out: str | Path | None, resume: bool, dry_run: bool, **asked: Any) -> Path:
    """See :func:`mst_toolkit.api.pretrain`."""
    check_lengths(epochs=asked["epochs"], steps=asked["steps"], hours=asked["hours"])
    check_gpus(asked["gpus"])
    if resume:
        return go_on(out, asked["gpus"])
    with tempfile.TemporaryDirectory(prefix="mst_") as temporary:
        source, faults = usable_photos(data, Path(temporary), bool(asked.get("skip_broken")))
        plan, cfg = pretraining_plan(data, asked, source)
        folder = Path(out) if out else RUNS / f"{name_of(data)}_{plan['architecture']}"
        if faults:
            plan.data["warnings"] = [left_out(faults)]
            cfg.data_root = cfg.train_dataloader.dataset.data_root = str((folder / USED).absolute())
        begin(plan, cfg, folder, dry_run, asked, faults)
        if faults and not dry_run:
            write_text(Path(source).read_text(encoding="utf-8"), folder / USED)
    if dry_run:
        return folder
    launch(folder, asked["gpus"], resume=False)
    finish_pretraining(folder)
    return folder


def usable_photos(data: str | Path, temporary: Path, skip_broken: bool) -> tuple[str, list[FileFault]]:
    """What a pretraining reads: the data, or a list of those files that can be read; and the others."""
    from .layouts import whole_photos

    source = str(Path(data).resolve()) if Path(data).exists() else str(data)
    if not skip_broken:
        return source, []
    whole, faults = whole_photos(source)
    if not faults:
        return source, []
    write_text("\n".join(whole) + "\n", temporary / USED)
    return str(temporary / USED), faults


def pretraining_plan(
    data: str | Path, asked: dict[str, Any], source: str | None = None
) -> tuple[RunPlan, Config]:
    """What a pretraining of ``data`` would do, and its config; ``source`` is what is read of them."""
    from mst_pretrain.data.sources import open_source

    from .planning import plan_pretraining
    from .recipes import pretraining
    from .timing import in_hours

    named = str(Path(data).resolve()) if Path(data).exists() else str(data)
    source = source or named
    images = len(open_source(source))
    init = asked.get("init")
    start = None if init in (None, RANDOM) else fetched(find_start(str(init)), RUNS / "downloads")
    model = start.model if start is not None else model_named(asked["arch"])

    def make(**length: Any) -> tuple[RunPlan, Config]:
        plan = plan_pretraining(named, images, model, start, machine(), {**asked, **length})
        return plan, with_options(plan, pretraining(plan, start, model, source), asked)

    return in_hours(make, asked.get("hours"), asked["gpus"])


def finetune(
    task: str,
    data: str | Path | None,
    init: str | Path | None,
    out: str | Path | None,
    resume: bool,
    dry_run: bool,
    **asked: Any,
) -> Path:
    """See :func:`mst_toolkit.api.finetune`."""
    check_lengths(epochs=asked["epochs"], steps=asked["steps"], hours=asked["hours"])
    check_gpus(asked["gpus"])
    if resume:
        return go_on(out, asked["gpus"])
    if init is None:
        raise UserError(
            "This training starts from a pretrained backbone, and no --init says from which. Use your own: "
            "--init runs/YOUR_RUN. Start without: --init random. [S01]"
        )
    found, faults = find_data(task, data, asked)
    start = fetched(find_start(init, asked["arch"]), RUNS / "downloads")
    named = name_of(data) if data is not None else name_of(Path(str(asked["train_json"])).parent)
    folder = Path(out) if out else RUNS / f"{named}_{task}_{start_name(start)}"
    train(found, start, folder, asked, dry_run, faults)
    return folder


def train(
    found: Found,
    start: Start,
    folder: Path,
    asked: dict[str, Any],
    dry_run: bool = False,
    faults: Sequence[FileFault] = (),
    finish: bool = True,
) -> None:
    """Fine-tune on data that were found, from a start whose weights are here.

    Args:
        found: The data.
        start: What the backbone starts from.
        folder: Of the run.
        asked: The arguments of the call.
        dry_run: Print the plan alone.
        faults: The files that are left out.
        finish: Write the report and say what comes next.
    """
    plan, cfg = finetuning_plan(found, start, folder, asked, write=not dry_run)
    begin(plan, cfg, folder, dry_run, asked, faults)
    if not dry_run:
        launch(folder, asked["gpus"], resume=False)
        if finish:
            finish_finetuning(folder)


def finetuning_plan(
    found: Found, start: Start, folder: Path, asked: dict[str, Any], write: bool
) -> tuple[RunPlan, Config]:
    """What a fine-tuning would do, and its config.

    Args:
        found: The data.
        start: What the backbone starts from.
        folder: Of the run.
        asked: The arguments of the call.
        write: Whether the lists of a split may be written into ``folder``.
    """
    from . import layouts, recipes
    from .planning import plan_finetuning
    from .timing import in_hours

    if found.val is None:
        found = layouts.split(found, asked["seed"])
    if write:
        refuse_used(folder)
        found = layouts.write_lists(found, folder)
    build = recipes.detection if found.task == "detection" else recipes.segmentation

    def make(**length: Any) -> tuple[RunPlan, Config]:
        plan = plan_finetuning(found, start, machine(), {**asked, **length})
        return plan, with_options(plan, build(plan, start, found), asked)

    return in_hours(make, asked.get("hours"), asked["gpus"])


def find_data(
    task: str | None, data: str | Path | None, asked: dict[str, Any]
) -> tuple[Found, list[FileFault]]:
    """The labelled data of a call, and the files that ``--skip-broken`` leaves out of them.

    Raises:
        UserError: See :func:`mst_toolkit.layouts.recognise`.
    """
    from . import layouts

    names = ("train_json", "train_images", "val_json", "val_images")
    explicit = {name: asked[name] for name in names if asked.get(name) is not None}
    if data is None and not explicit:
        raise UserError("Give the labelled data: mst finetune TASK DATA, or --train-json and --train-images.")
    found = layouts.recognise(data, task, boxes_only=bool(asked.get("boxes_only")), **explicit)
    return layouts.without_broken(found) if asked.get("skip_broken") else (found, [])


def with_options(plan: RunPlan, cfg: Config, asked: dict[str, Any]) -> Config:
    """``--cfg-options`` put into a config as every tool does, and into the plan, whose decisions they overrule.

    Raises:
        UserError: A key is not in it, or the value is of another kind.
    """
    words = list(asked.get("cfg_options") or ())
    asked["options"] = {}
    if not words:
        return cfg
    from mst_pretrain.runtime.config import load_config, read_options
    from mst_pretrain.runtime.options import ConfigOptions

    parser = argparse.ArgumentParser(prog="mst")
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, default={})
    texts = parser.parse_args(["--cfg-options", *words]).cfg_options
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "recipe.py")
        path.write_text(cfg.pretty_text)
        asked["options"] = read_options(path, texts)
        for key, value in asked["options"].items():
            plan.decide(key, value, "--cfg-options, which overrule the lines above")
        return load_config(path, asked["options"])


def begin(
    plan: RunPlan,
    cfg: Config,
    folder: Path,
    dry_run: bool,
    asked: dict[str, Any],
    faults: Sequence[FileFault] = (),
) -> None:
    """Print the plan, and write the folder of the run; its log begins with the files that are left out.

    Raises:
        UserError: There is a run in the folder.
    """
    from .recipes import write

    data = plan.data
    counts = (
        f"{data['train']:,} training and {data['val']:,} validation images"
        if data["val"]
        else f"{data['train']:,} images"
    )
    print(f"Data    {data['root']}: {data['layout']}, {counts}")
    for kind in ("notes", "warnings"):
        for text in data.get(kind, ()):
            print(f"        {kind[:-1]}: {shown_message(text)}")
    print(*plan.lines(), sep="\n", flush=True)
    if dry_run:
        print(f"--dry-run: nothing was written. Without it this goes to {folder}")
        return
    refuse_used(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = write(plan, cfg, folder, asked["options"], asked.get("logger") or ())
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json({**plan.record(created), "config_sha256": file_sha256(path)}, folder / PLAN)
    if faults:
        lines = [f"left out by --skip-broken: {fault.path}: {fault.what}" for fault in faults]
        write_text("\n".join(lines) + "\n", folder / LOG)
    print(f"Run     {folder}: {CONFIG} is yours to edit", flush=True)


def refuse_used(folder: Path) -> None:
    """Raise a UserError where a run is in the folder already, or a config.py that its user has edited."""
    if (folder / CHECKPOINTS).is_dir() or ((folder / CONFIG).exists() and not is_unbegun(folder)):
        raise UserError(
            f"{folder} holds a run already. Continue it: --out {folder} --resume; or start another: --out NEW_FOLDER"
        )


def is_unbegun(folder: Path) -> bool:
    """Whether a training was refused before its first step, and its config is as it was written."""
    if not (folder / PLAN).is_file() or (folder / METRICS).exists():
        return False
    told = json.loads((folder / PLAN).read_text(encoding="utf-8")).get("config_sha256")
    return bool(told == file_sha256(folder / CONFIG))


def check_gpus(gpus: int) -> None:
    """Raise a UserError where there are not as many GPUs; without any, processes share the CPU."""
    import torch

    there = torch.cuda.device_count()
    if gpus < 1 or (there and gpus > there):
        raise UserError(f"--gpus {gpus}: this machine has {there}. Give a number from 1 to {max(1, there)}.")


def go_on(out: str | Path | None, gpus: int) -> Path:
    """Continue the run of a folder from its newest checkpoint.

    Raises:
        UserError: No folder is named, or it has no run.
    """
    from .runs import open_run

    if out is None:
        raise UserError("--resume: name the run's folder with --out.")
    run = open_run(out)
    launch(run.folder, gpus, resume=True)
    (finish_pretraining if run.task == "pretrain" else finish_finetuning)(run.folder)
    return run.folder


def launch(folder: Path, gpus: int, resume: bool, options: Sequence[str] = (), quiet: bool = False) -> None:
    """Train the config of a run's folder, in a process of its own, or one for each GPU.

    Its lines go where this process prints: to the terminal, or into a notebook.

    Raises:
        UserError: The training ended with an error, which it has printed.
        Stopped: It was stopped by a signal, and can be resumed.
    """
    words = [str(folder / CONFIG), "--work-dir", str(folder)]
    words += ["--resume"] if resume else []
    words += ["--cfg-options", *options] if options else []
    command = training_command(words, gpus)
    packages = Path(__file__).resolve().parents[1]
    code_number = run_child(command, child_environment(packages), quiet)
    if code_number == STOPPED:
        raise Stopped(f"stopped; continue with: --out {folder} --resume")
    if code_number in (-signal.SIGINT, 130):
        raise KeyboardInterrupt
    if code_number:
        raise UserError(
            f"the training ended with code {code_number}; its message stands above and in {folder / 'train.log'}. "
            f"Continue it where that is mended: --out {folder} --resume"
        )


def training_command(words: Sequence[str], gpus: int) -> list[str]:
    """``tools/train.py`` with its arguments, in as many processes."""
    words = [str(resources() / "tools/train.py"), *words]
    if gpus == 1:
        return [sys.executable, *words]
    code = "from mst_pretrain.training.elastic import torchrun; torchrun()"
    return [sys.executable, "-c", code, "--standalone", f"--nproc_per_node={gpus}", *words]


def run_child(command: Sequence[str], environment: dict[str, str], quiet: bool) -> int:
    """Run a command to its end, and hand signals on to it.

    In a notebook, where ``sys.stdout`` is not the process's own, its lines are printed one by one.

    Returns:
        Its exit code.
    """
    own = sys.stdout is sys.__stdout__ and not quiet
    pipes: dict[str, Any] = (
        {} if own else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    )
    with subprocess.Popen(command, env=environment, **pipes) as child:
        handled = {}
        for name in ("SIGTERM", "SIGUSR1"):
            number = getattr(signal, name, None)
            if number is None:
                continue
            try:
                handled[number] = signal.signal(number, lambda given, _: os.kill(child.pid, given))
            except ValueError:  # not the main thread: signals stay as they are
                break
        lines: list[str] = []
        try:
            for line in child.stdout or ():
                lines.append(line)
                if not quiet:
                    print(line, end="", flush=True)
            code = child.wait()
        except KeyboardInterrupt:
            code = child.wait()  # the terminal has sent it the same
            code = code or 130
        finally:
            for number, before in handled.items():
                signal.signal(number, before)
    if quiet and code:
        print("".join(lines[-15:]), end="", flush=True)
    return code


def finish_pretraining(folder: Path) -> None:
    """The backbone for others, the report, and what to do next."""
    from .exporting import backbone_folder

    backbone_folder(folder / CHECKPOINTS / LAST, folder / "backbone")
    write_page(folder)
    print(
        f"Done    {folder}/backbone holds the backbone for timm and others. Next:",
        f"        mst finetune detection DATA --init {folder}",
        f"        mst probe knn {folder} DATA",
        sep="\n",
        flush=True,
    )


def finish_finetuning(folder: Path) -> None:
    """The report, and what to do next."""
    write_page(folder)
    print(
        f"Done    {folder}. Next:",
        f"        mst evaluate {folder}",
        f"        mst predict {folder} PHOTOS --out predictions",
        sep="\n",
        flush=True,
    )


def write_page(folder: Path) -> None:
    """``report.html``; a page that cannot be made is named, and does not make a finished training an error."""
    from .reporting import write_report

    try:
        with quiet():
            page = write_report([folder])
        print(f"Report  {page}", flush=True)
    except UserError as error:
        print(f"warning: no report was written: {error}", flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what other libraries print and warn of while they are imported and build a model."""
    from mst_pretrain.runtime.imports import quiet_imports

    with quiet_imports(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def name_of(data: str | Path) -> str:
    """A folder's name for data: the last part of a path, without what file names do not take."""
    text = str(Path(str(data)).resolve().name) if Path(str(data)).exists() else str(data)
    stem = text.rsplit("/", 1)[-1]
    return (
        "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in stem).strip("_") or "data"
    )


def start_name(start: Start) -> str:
    """For a folder: the run's name, the row's, or ``random``."""
    if start.kind == RANDOM:
        return RANDOM
    return name_of(start.given)
