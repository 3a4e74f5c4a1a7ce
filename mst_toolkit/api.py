"""The friendly calls, in Python and, word for word, on the command line.

    import mst_toolkit as mst

    backbone = mst.pretrain("photos")
    detector = mst.finetune("detection", data="parts_coco", init=backbone)
    mst.evaluate(detector)

A parameter without a default is a positional argument of ``mst NAME``; every other one is its ``--option``. This module
imports nothing heavy: the help of a command must not wait for PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Task = Literal["detection", "segmentation"]
ProbeKind = Literal["knn", "linear", "segmentation"]
Target = Literal["timm", "huggingface", "mmdet", "mmseg", "detectron2", "onnx"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Logger = Literal["tensorboard", "wandb", "mlflow"]


def pretrain(
    data: str | Path,
    *,
    out: str | Path | None = None,
    arch: str = "vit_small",
    init: str | Path | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    hours: float | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
    image_size: int | None = None,
    gpus: int = 1,
    workers: int | None = None,
    seed: int = 0,
    resume: bool = False,
    logger: Sequence[Logger] = (),
    knn: str | Path | None = None,
    skip_broken: bool = False,
    dry_run: bool = False,
    cfg_options: Sequence[str] = (),
) -> Path:
    """Pretrain a backbone on images without labels.

    Args:
        data: A folder of images, flat or nested; a list of paths; tar shards; or hf:NAME.
        out: The run's folder (default: runs/DATA_ARCH).
        arch: vit_small, swin_tiny, vit_tiny, or a timm name of a ViT or Swin.
        init: Start from this backbone instead of random weights: a run, or any checkpoint that is read.
        epochs: Passes over the images (default: 300).
        steps: Length in steps, instead of --epochs.
        hours: Length in hours, instead of --epochs: a few steps are timed first.
        batch_size: Images of a step and GPU (default: of the recipe).
        precision: auto is bfloat16 on a GPU that computes in it, else float32.
        image_size: Side of the large crops in pixels (default: the architecture's).
        gpus: Processes, each on a GPU of its own.
        workers: Processes per GPU that load images (default: of the machine).
        seed: Of everything random.
        resume: Continue the run in --out.
        logger: Also write curves for these: tensorboard, wandb, mlflow.
        knn: Labelled images, CLASS/IMAGE: measure k-NN on held-out ones during the run, and keep the best weights by it
            (default: RankMe alone, a number without labels that often falls while a run learns).
        skip_broken: Leave out files that are truncated or cannot be read; they are counted and named.
        dry_run: Print the plan, write nothing.
        cfg_options: KEY=VALUE of the MMEngine config, applied last.

    Returns:
        The run's folder.

    Raises:
        UserError: Bad data, arguments or machine; found before training where possible.
    """
    from .training import pretrain as call

    return call(**locals_of(locals()))


def finetune(
    task: Task,
    data: str | Path | None = None,
    *,
    init: str | Path | None = None,
    out: str | Path | None = None,
    arch: str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    hours: float | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
    image_size: int | None = None,
    gpus: int = 1,
    workers: int | None = None,
    seed: int = 0,
    resume: bool = False,
    logger: Sequence[Logger] = (),
    boxes_only: bool = False,
    skip_broken: bool = False,
    train_json: str | Path | None = None,
    train_images: str | Path | None = None,
    val_json: str | Path | None = None,
    val_images: str | Path | None = None,
    dry_run: bool = False,
    cfg_options: Sequence[str] = (),
) -> Path:
    """Train a detector or a segmentor on labelled images, starting from a pretrained backbone.

    Args:
        task: detection or segmentation.
        data: Labelled images in any layout of docs/data_layouts.md; left out with --train-json and the like.
        init: What the backbone starts from: a run, any checkpoint that is read, a hub folder, dino, supervised, a
            timm name, or random. It decides the architecture.
        out: The run's folder (default: runs/DATA_TASK_START).
        arch: Architecture of a random start, or of dino and supervised (default: vit_small).
        epochs: Passes over the training images (default: from the size of the data).
        steps: Length in steps, instead of --epochs.
        hours: Length in hours, instead of --epochs: a few steps are timed first.
        batch_size: Images of a step and GPU (default: from the memory).
        precision: auto is float16 for detection on a GPU, else float32.
        image_size: Short side in pixels (default: from the data).
        gpus: Processes, each on a GPU of its own.
        workers: Processes per GPU that load images (default: of the machine).
        seed: Of everything random, the split of the data included.
        resume: Continue the run in --out.
        logger: Also write curves for these: tensorboard, wandb, mlflow.
        boxes_only: Use the boxes and leave polygons out.
        skip_broken: Leave out files that are truncated or cannot be read; they are counted and named.
        train_json: COCO file of the training images, instead of DATA.
        train_images: Their folder.
        val_json: COCO file of the validation images.
        val_images: Their folder.
        dry_run: Print the plan, write nothing.
        cfg_options: KEY=VALUE of the MMEngine config, applied last.

    Returns:
        The run's folder.

    Raises:
        UserError: Bad data, start, arguments or machine; found before training where possible.
    """
    from .training import finetune as call

    return call(**locals_of(locals()))


def evaluate(
    run: str | Path,
    *,
    split: Literal["val", "test"] = "val",
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Score a detector or a segmentor: per class, with 95 % intervals and a trivial baseline beside every row.

    Args:
        run: The folder of a fine-tuning.
        split: Which images.
        checkpoint: Another one than the run's best.
        out: Where metrics.json and per_image.npz go (default: the run's folder).
        device: cpu, cuda, cuda:1 (default: a GPU where there is one).

    Returns:
        What metrics.json holds; every score in per cent.
    """
    from .runs import fine_tuned

    found = fine_tuned(run)
    weights = Path(checkpoint) if checkpoint else found.checkpoint()
    from .evaluating import evaluate as call

    return call(found.config, weights, Path(out) if out else found.folder, split=split, device=device)


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path = "predictions",
    checkpoint: str | Path | None = None,
    score_thr: float = 0.3,
    batch_size: int = 1,
    precision: Precision = "auto",
    device: str | None = None,
) -> Path:
    """Predict images without labels: pictures, an index in JSON, and files in official formats.

    Args:
        run: The folder of a fine-tuning.
        images: Images, or folders of them at any depth.
        out: A new or empty folder.
        checkpoint: Another one than the run's best.
        score_thr: Of drawn boxes, 0 to 1; the JSON has every box.
        batch_size: Images of equal shape in one forward pass.
        precision: auto is bfloat16 on a GPU that computes in it, else float32.
        device: cpu, cuda, cuda:1 (default: a GPU where there is one).

    Returns:
        The folder written.
    """
    from .runs import predict as call

    return call(**locals_of(locals()))


def export(
    run: str | Path,
    out: str | Path,
    *,
    to: Target = "timm",
    license: str | None = None,
    push: str | None = None,
) -> Path:
    """Write a backbone, or a segmentor as ONNX, for another library.

    Args:
        run: A run's folder, or any checkpoint that is read.
        out: The folder or file to write.
        to: timm, huggingface, mmdet, mmseg, detectron2 or onnx.
        license: Of the weights, for the model card, such as cc-by-4.0; needed by --push.
        push: Name of a repository on the Hugging Face hub to upload the folder to.

    Returns:
        What was written.
    """
    from .exporting import export as call

    return call(Path(run), Path(out), to, license=license, push=push)


def probe(
    kind: ProbeKind, run: str | Path, data: str | Path, *, out: str | Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """Measure a frozen backbone: k-NN or a linear layer on class folders, or a linear layer on label maps.

    Args:
        kind: knn, linear or segmentation.
        run: A run's folder, any checkpoint that is read, or random.
        data: Class folders in train and val, or a segmentation layout.
        out: Where metrics.json goes (default: RUN/probe_KIND).
        seed: Of everything random.

    Returns:
        What metrics.json holds; every score in per cent.
    """
    from .runs import probe as call

    return call(**locals_of(locals()))


def report(runs: Sequence[str | Path], *, out: str | Path | None = None) -> Path:
    """Write report.html: one file that shows what was run and what came out; of several runs, side by side.

    Args:
        runs: Folders of runs.
        out: The file to write (default: report.html in the run's folder; of several, in the folder above the first).

    Returns:
        The page.
    """
    from .reporting import write_report

    return write_report([Path(run) for run in runs], Path(out) if out else None)


def compare(
    data: str | Path,
    *,
    starts: Sequence[str | Path],
    task: Task | None = None,
    seeds: int = 3,
    labels: Sequence[int] = (),
    out: str | Path | None = None,
    arch: str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    gpus: int = 1,
    workers: int | None = None,
    boxes_only: bool = False,
    skip_broken: bool = False,
    dry_run: bool = False,
    cfg_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Fine-tune from each start with one recipe, and compare what comes out with paired intervals.

    Args:
        data: Labelled images in any layout of docs/data_layouts.md.
        starts: random, supervised, dino, runs, or any checkpoint that is read; the first is compared with the others.
        task: detection or segmentation (default: what the data are).
        seeds: Trainings of each start.
        labels: Numbers of labelled training images, such as 20 50 100 (default: all).
        out: Folder of everything (default: runs/compare_DATA).
        arch: Architecture of random, dino and supervised (default: that of the first run given, else vit_small).
        epochs: Passes over the training images (default: from the size of the data).
        steps: Length in steps, instead of --epochs.
        batch_size: Images of a step and GPU (default: from the memory).
        image_size: Short side in pixels (default: from the data).
        gpus: Processes, each on a GPU of its own.
        workers: Processes per GPU that load images (default: of the machine).
        boxes_only: Use the boxes and leave polygons out.
        skip_broken: Leave out files that are truncated or cannot be read; they are counted and named.
        dry_run: Print what would be trained, write nothing.
        cfg_options: KEY=VALUE of every training's config, applied last.

    Returns:
        What comparison.json holds.
    """
    from .comparing import compare as call

    return call(**locals_of(locals()))


def doctor(
    target: str | Path | None = None,
    *,
    task: Literal["pretrain", "detection", "segmentation"] | None = None,
    init: str | Path | None = None,
    arch: str | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    gpus: int = 1,
    boxes_only: bool = False,
    quick: bool = False,
    out: str | Path | None = None,
    report: str | Path | None = None,
    cfg_options: Sequence[str] = (),
) -> int:
    """Check machine, data and plan before anything is trained; of a config, try everything that its run needs.

    Args:
        target: Data, or a config (a .py file); left out: the machine alone.
        task: pretrain, detection or segmentation (default: what the data are).
        init: What a fine-tuning would start from.
        arch: Architecture, where no start decides it.
        batch_size: Images of a step and GPU.
        image_size: In pixels.
        gpus: Processes.
        boxes_only: Use the boxes and leave polygons out.
        quick: Make no steps.
        out: Folder that a config's run would write to (default: the config's).
        report: Also write what was found here, as JSON.
        cfg_options: KEY=VALUE of the config.

    Returns:
        The number of faults; of a config 1 where there is any.
    """
    from .examining import doctor as call

    return call(**locals_of(locals()))


def locals_of(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, without what the function imported."""
    return {name: value for name, value in values.items() if name != "call"}


CALLS = (pretrain, finetune, evaluate, predict, export, probe, report, compare, doctor)
