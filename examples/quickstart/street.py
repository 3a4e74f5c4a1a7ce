"""Built-in data: street scenes drawn from a seed, in COCO's and in Cityscapes' layout. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

from mst_pretrain.runtime.atomic import write_json
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.progress import Progress

from .street_things import THINGS, render

SPLITS = ("train", "val")
LABEL_IDS = {0: 7, 1: 8, 2: 11, 8: 21, 10: 23, 11: 24, 13: 26, 14: 27, 15: 28, 18: 33}  # train id -> label id
MARKER = "street.json"  # written last: its presence means complete


@dataclass(frozen=True)
class SceneSet:
    """What determines every byte of the data set, apart from the drawing code."""

    seed: int
    train: int
    val: int
    height: int
    width: int


def generate(
    out: str | Path, seed: int, train: int = 600, val: int = 100, height: int = 128, width: int = 256
) -> None:
    """Write OUT/coco and OUT/cityscapes, both of the same scenes; a function of the arguments alone.

    Nothing is done when ``out`` already holds the same data. Otherwise everything is drawn into ``out.part``
    and renamed at the end, so ``out`` is never half written. Images of one index differ between seeds and splits.

    Raises:
        UserError: Impossible sizes, or ``out`` holds something that is not ours to replace.
    """
    out, plan = Path(out), SceneSet(seed, train, val, height, width)
    if min(train, val) < 1 or min(height, width) < 32 or seed < 0:
        raise UserError(f"Street scenes need train and val >= 1, sides >= 32 and seed >= 0, not {plan}.")
    marker = asdict(plan) | {"code": _code_version()}
    if (out / MARKER).is_file():
        if json.loads((out / MARKER).read_text()) == marker:
            print(f"street scenes: {out} is complete")
            return
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and holds something else than street scenes. Choose another folder.")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for split in SPLITS:
        for folder in _folders(part, split):
            folder.mkdir(parents=True)
    jobs = [(part, plan, split, i) for split in SPLITS for i in range(getattr(plan, split))]
    records = _draw_all(jobs)
    for split, scenes in (("train", records[:train]), ("val", records[train:])):
        write_json(_coco_json(scenes), part / f"coco/annotations/instances_{split}2017.json", indent=None)
    write_json(marker, part / MARKER)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    print(f"street scenes: {train} for training and {val} for validation drawn into {out}", flush=True)


def _code_version() -> str:
    """Digest of the drawing code, so that data of an older version are drawn again."""
    files = [Path(__file__).with_name(name) for name in ("street.py", "street_scenes.py", "street_things.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _folders(root: Path, split: str) -> tuple[Path, Path, Path]:
    """COCO images, Cityscapes images, Cityscapes label maps."""
    city = root / "cityscapes"
    return (
        root / "coco" / f"{split}2017",
        city / "leftImg8bit" / split / "street",
        city / "gtFine" / split / "street",
    )


def _draw_all(jobs: list[tuple[Path, SceneSet, str, int]]) -> list[dict[str, Any]]:
    """Every scene in order, on all cores, with progress."""
    workers = min(os.cpu_count() or 1, len(jobs))
    method = (
        "fork" if sys.platform == "linux" else None
    )  # children draw only; importing all again would cost more
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    with multiprocessing.get_context(method).Pool(workers, signal.signal, ignore) as pool:
        scenes = pool.imap(draw_scene, jobs, chunksize=4)
        return list(Progress("drawing street scenes", len(jobs)).over(scenes))


def draw_scene(job: tuple[Path, SceneSet, str, int]) -> dict[str, Any]:
    """Draw scene ``index`` of a split and write its four files (image twice, two label maps).

    Returns:
        COCO's entry of the image, and annotations without ids.
    """
    root, plan, split, index = job
    rng = np.random.default_rng([plan.seed, SPLITS.index(split), index])
    pixels, train_ids, things = render(rng, split, plan.height, plan.width)
    name = f"street_{index:06d}"
    coco, images, labels = _folders(root, split)
    Image.fromarray(pixels).save(coco / f"{name}.jpg", quality=92)
    Image.fromarray(pixels).save(images / f"{name}_leftImg8bit.png", compress_level=1)
    lookup = np.zeros(256, np.uint8)
    lookup[list(LABEL_IDS)] = list(LABEL_IDS.values())
    Image.fromarray(train_ids).save(labels / f"{name}_gtFine_labelTrainIds.png")
    Image.fromarray(lookup[train_ids]).save(labels / f"{name}_gtFine_labelIds.png")
    annotations = []
    for kind, mask in things:
        run_lengths = mask_api.encode(np.asfortranarray(mask, np.uint8))
        annotations.append(
            {
                "category_id": kind + 1,
                "bbox": [float(side) for side in mask_api.toBbox(run_lengths)],
                "area": int(mask.sum()),
                "segmentation": {"size": list(mask.shape), "counts": run_lengths["counts"].decode("ascii")},
                "iscrowd": 0,
            }
        )
    image = {"file_name": f"{name}.jpg", "height": plan.height, "width": plan.width}
    return {"image": image, "annotations": annotations}


def _coco_json(scenes: list[dict[str, Any]]) -> dict[str, Any]:
    """Number images and annotations from 1 and put them under COCO's keys."""
    annotations = [
        {**annotation, "image_id": image_id}
        for image_id, scene in enumerate(scenes, start=1)
        for annotation in scene["annotations"]
    ]
    return {
        "info": {"description": "street scenes drawn from a seed"},
        "images": [{"id": number, **scene["image"]} for number, scene in enumerate(scenes, start=1)],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(THINGS, start=1)],
    }
