"""The plans of a pretraining and of a fine-tuning: each decision with its reason."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mst_pretrain.runtime.errors import UserError

from .facts import Machine, workers
from .plan import (
    DETECTION_BATCH,
    SEGMENTATION_BATCH,
    SMALL,
    VALIDATIONS,
    RunPlan,
    decide_steps,
    detection_steps,
    scaled_rate,
    segmentation_steps,
    validation_interval,
    validations_of_comparison,
    warm_up,
)
from .starts import SHORT, TITLES, Start

if TYPE_CHECKING:
    from .layouts import Found

LOOKED_AT = 200  # images whose sizes are read
ASKED = "asked for"


def plan_pretraining(
    data: str, images: int, model: str, start: Start | None, machine: Machine, asked: dict[str, Any]
) -> RunPlan:
    """The plan of a pretraining.

    Args:
        data: As the config names it.
        images: Their number.
        model: timm's name of the architecture.
        start: What it starts from, or None for random weights.
        machine: What computes.
        asked: The arguments of the call: gpus, batch_size, precision, image_size, workers, seed, epochs, steps,
            knn.

    Raises:
        UserError: The images do not fill a step.
    """
    short = start.short if start is not None else SHORT.get(model, model)
    summary = {"layout": "photos", "root": data, "train": images, "val": 0}
    record = (
        start.record() if start is not None else {"given": "random", "kind": "random", "architecture": model}
    )
    plan = RunPlan("pretrain", f"MST pretraining, {TITLES.get(short, short)}", summary, record, asked["seed"])
    plan.decide("architecture", short, "of --init" if start is not None else "--arch")
    plan.decide("images", images, f"in {data}")
    small = images < SMALL
    plan.decide(
        "recipe",
        "small-data" if small else "8xb128-300e_in1k",
        f"fewer than {SMALL:,} images" if small else f"{SMALL:,} images or more",
    )
    gpus = plan.decide("gpus", asked["gpus"], "--gpus")
    decide_batch(plan, asked, 16 if small else 128, "of the recipe")
    per_step = plan["batch_size"] * gpus
    if images < per_step:
        smaller = max(1, images // gpus)
        raise UserError(
            f"{images} images do not fill one step of {per_step} ({gpus} GPUs x {plan['batch_size']}). Use "
            f"--batch-size {smaller} --gpus {gpus}, or check the folder {data}. [P01]"
        )
    by_size = max(1, round(300 * images / per_step))
    reason = "300 passes over the images, as the published recipes"
    decide_steps(
        plan, images, per_step, (by_size, reason), asked["steps"], asked["epochs"], asked.get("in_hours")
    )
    plan.decide(
        "measure_every",
        validation_interval(plan["steps"]),
        f"about {VALIDATIONS} measurements, the best is kept",
    )
    labelled = asked.get("knn")
    if labelled is not None:
        plan.decide(
            "knn", str(Path(labelled).absolute()), "--knn: the best weights are those of the highest k-NN"
        )
    else:
        plan.decide(
            "knn",
            None,
            "no --knn: RankMe alone, which often falls while a run learns; exports take the last weights",
        )
    built = start.architecture.image_size[0] if start is not None else 224
    if asked["image_size"] is not None:
        plan.decide("image_size", asked["image_size"], "--image-size")
    else:
        plan.decide("image_size", built, "side of the large crops that the architecture was made for")
    decide_precision(plan, asked, machine, "bfloat16")
    decide_workers(plan, asked, machine)
    return plan


def decide_batch(plan: RunPlan, asked: dict[str, Any], default: int, why: str) -> int:
    """Images of a step and process."""
    given = asked["batch_size"]
    if given is not None and given < 1:
        raise UserError(f"--batch-size {given}: give 1 or more.")
    return plan.decide("batch_size", given or default, "--batch-size" if given else why)


def decide_precision(plan: RunPlan, asked: dict[str, Any], machine: Machine, on_gpu: str) -> str:
    """Number format of the forward pass.

    Raises:
        UserError: float16 without a GPU.
    """
    given = asked["precision"]
    if given == "float16" and not machine.gpus:
        raise UserError(
            "--precision float16 needs a GPU, and none is visible. Leave it out: auto fits the machine."
        )
    if given != "auto":
        return plan.decide("precision", given, "--precision")
    if not machine.gpus:
        return plan.decide("precision", "float32", "no GPU is visible")
    if on_gpu == "bfloat16" and not all(gpu.bfloat16 for gpu in machine.gpus):
        return plan.decide("precision", "float32", "this GPU does not compute in bfloat16")
    return plan.decide("precision", on_gpu, "of the recipe, on a GPU")


def decide_workers(plan: RunPlan, asked: dict[str, Any], machine: Machine) -> int:
    """Loading processes of each training process."""
    given = asked["workers"]
    if given is not None:
        return plan.decide("workers", given, "--workers")
    count = workers(machine.cores, plan["gpus"])
    return plan.decide("workers", count, f"{machine.cores} CPU cores, {plan['gpus']} training processes")


def plan_finetuning(found: Found, start: Start, machine: Machine, asked: dict[str, Any]) -> RunPlan:
    """The plan of a fine-tuning.

    Args:
        found: The data, with a validation part.
        start: What the backbone starts from.
        machine: What computes.
        asked: As for :func:`plan_pretraining`, with ``boxes_only``, and ``compares`` of a comparison.
    """
    detects = found.task == "detection"
    assert found.val is not None
    masks = detects and found.masks == "all" and not asked["boxes_only"]
    head = ("Mask R-CNN" if masks else "Faster R-CNN") if detects else "UperNet"
    summary = {
        "layout": found.layout,
        "root": str(found.root),
        "train": found.train.count,
        "val": found.val.count,
        "classes": list(found.classes),
        "objects": dict(found.objects),
        "notes": list(found.notes),
        "warnings": list(found.warnings),
    }
    plan = RunPlan(found.task, f"{head}, {start.title}", summary, start.record(), asked["seed"])
    plan.decide("start", start.given, "--init" if start.kind != "random" else "random weights: written out")
    if detects:
        why = (
            "every object has a polygon"
            if masks
            else ("--boxes-only" if asked["boxes_only"] else "no polygons")
        )
        plan.decide("masks", masks, why)
        if find_spec("faster_coco_eval") is None:
            plan.decide("scored_by", "pycocotools", "the same numbers; faster-coco-eval is not installed")
    plan.decide("gpus", asked["gpus"], "--gpus")
    recipe_batch = DETECTION_BATCH if detects else SEGMENTATION_BATCH
    default, why = default_batch(found.train.count, machine)
    decide_batch(plan, asked, default, why)
    images, batch = found.train.count, plan["batch_size"] * plan["gpus"]
    if detects:
        formula = (
            detection_steps(images, batch),
            f"from the size of the data: 1,500 (N/100)^0.5755 steps of 16, N = {images:,}",
        )
    else:
        formula = (
            segmentation_steps(images, batch),
            f"from the size of the data: 4,000 (N/100)^0.6787 steps of 8, N = {images:,}",
        )
    steps = decide_steps(plan, images, batch, formula, asked["steps"], asked["epochs"], asked.get("in_hours"))
    plan.decide("warm_up", warm_up(steps, 500 if detects else 1500), "the recipe's, at most 5 % of the steps")
    count, why = VALIDATIONS, f"about {VALIDATIONS} validations, the best is kept"
    if asked.get("compares"):
        count, why = validations_of_comparison(steps, batch, found.val.count)
    plan.decide("validate_every", validation_interval(steps, count), why)
    rate = 1e-4 if detects else (6e-5 if start.is_swin else 3e-5)
    plan.decide(
        "learning_rate",
        round(scaled_rate(rate, batch, recipe_batch), 10),
        f"{rate:.0e} of the recipe for {recipe_batch} images, times the square root of {batch}/{recipe_batch}",
    )
    plan.decide(
        "best", "coco/bbox_mAP" if detects else "mIoU", "the score that decides which weights are kept"
    )
    decide_sizes(plan, found, asked)
    decide_precision(plan, asked, machine, "float16" if detects else "float32")
    decide_workers(plan, asked, machine)
    return plan


def default_batch(images: int, machine: Machine) -> tuple[int, str]:
    """Images of a step and process: from the GPU's memory, and no more than there are."""
    free = machine.least_free
    if free is None:
        count, why = 2, "no GPU is visible"
    else:
        count = 2 if free < 10 else 4 if free < 30 else 8
        why = f"{free:.1f} GB of GPU memory are free"
    if images < count:
        return max(1, images), f"{images} training images"
    return count, why


def decide_sizes(plan: RunPlan, found: Found, asked: dict[str, Any]) -> None:
    """Short side of a detection, image and window of a segmentation."""
    height, width = typical_size(found)
    given = asked["image_size"]
    if given is not None and given < 32:
        raise UserError(f"--image-size {given}: give at least 32 pixels.")
    if found.task == "detection":
        if given is not None:
            plan.decide("image_size", given, "--image-size, of the short side")
            return
        side = min(800, 2 * min(height, width))
        reason = "the recipe's" if side == 800 else f"twice the {min(height, width)} px of the images"
        plan.decide("image_size", side, f"short side: {reason}")
        return
    factor = (given or min(1024, min(height, width))) / min(height, width)
    size = round(width * factor), round(height * factor)
    why = (
        "--image-size, of the short side"
        if given
        else f"the images' own {width} x {height}, at most 1,024 px high"
    )
    plan.decide("image_size", size, why)
    crop = tuple(max(32, min(most, side) // 32 * 32) for most, side in ((512, size[1]), (1024, size[0])))
    plan.decide(
        "crop", crop, "height x width of the training windows: the recipe's 512 x 1024, inside the image"
    )


def typical_size(found: Found) -> tuple[int, int]:
    """Median (height, width) in pixels of the training images.

    Raises:
        UserError: None of them can be read.
    """
    from PIL import Image

    names = found.train.names
    folder = Path(found.train.images)
    paths = (
        [folder / name for name in names]
        if names is not None
        else [
            path for path in sorted(folder.rglob("*")) if path.suffix.lower() in Image.registered_extensions()
        ]
    )
    step = max(1, math.ceil(len(paths) / LOOKED_AT))
    sizes = []
    for path in paths[::step]:
        try:
            with Image.open(path) as image:
                sizes.append(image.size)
        except OSError:
            continue
    if not sizes:
        raise UserError(f"{folder}: none of the training images can be read. Check the files there.")
    return round(median(size[1] for size in sizes)), round(median(size[0] for size in sizes))
