"""Overfit Mask R-CNN with a reduced Swin to the first four photographs of a COCO folder, on a CPU.

Makes a folder of the four photographs of lowest id with all their annotations, crowds too, trains
studies/configs/overfit_mask_rcnn_swin.py on it with tools/train.py, tests on the same photographs with tools/test.py,
and prints one JSON line. It asks for bbox_mAP >= 0.5 and segm_mAP >= 0.4 and exits with 1 below.

    python studies/overfit.py DATA/coco-mini --out work_dirs/overfit
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mst_pretrain.runtime.atomic import write_json
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_toolkit.resources import child_environment

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "studies/configs/overfit_mask_rcnn_swin.py"
PHOTOS = 4
WANTED = {"coco/bbox_mAP": 0.5, "coco/segm_mAP": 0.4}


def make_subset(source: Path, target: Path, photos: int = PHOTOS) -> list[int]:
    """The photographs of lowest id and all their annotations as the train and the val split of a COCO folder.

    Args:
        source: COCO's layout.
        target: Receives ``annotations``, ``train2017`` and ``val2017``.
        photos: How many.

    Returns:
        Their ids.

    Raises:
        UserError: The source is not in COCO's layout, or has fewer photographs.
    """
    from mst_transfer.data.coco_file import read_coco

    content = read_coco(source / "annotations/instances_train2017.json")
    images = sorted(content["images"], key=lambda image: image["id"])[:photos]
    if len(images) < photos:
        raise UserError(f"{source} has {len(images)} training photographs; {photos} are needed.")
    ids = {image["id"] for image in images}
    kept = [annotation for annotation in content["annotations"] if annotation["image_id"] in ids]
    subset = {**content, "images": images, "annotations": kept}
    for split in ("train2017", "val2017"):
        (target / split).mkdir(parents=True, exist_ok=True)
        write_json(subset, target / f"annotations/instances_{split}.json", indent=None)
        for image in images:
            shutil.copyfile(source / "train2017" / image["file_name"], target / split / image["file_name"])
    return [image["id"] for image in images]


def call(tool: str, *arguments: str) -> None:
    """A tool as a user calls it; its output stays visible."""
    command = [sys.executable, str(ROOT / f"tools/{tool}.py"), *arguments]
    if code := subprocess.call(command, env=child_environment(ROOT), stdout=sys.stderr):
        raise UserError(f"tools/{tool}.py ended with {code}; its message stands above.")


def main(argv: list[str] | None = None) -> int:
    """Subset, training, test, one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco", type=Path, nargs="?", help="COCO folder (default: $MST_REAL_DATA/coco-mini)")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/overfit"))
    parser.add_argument("--iters", type=int, help="fewer iterations, to try the script")
    args = parser.parse_args(argv)
    source = args.coco or Path(os.environ.get("MST_REAL_DATA", "."), "coco-mini")
    photos = make_subset(source, args.out / "data")
    run = args.out / "run"
    shutil.rmtree(run, ignore_errors=True)
    options = [f"data_root={args.out / 'data'}"]
    if args.iters:
        options += [f"train_cfg.max_iters={args.iters}", f"train_cfg.val_begin={args.iters}"]
        options += [f"train_cfg.val_interval={args.iters}"]
    start = time.monotonic()
    call("train", str(CONFIG), "--work-dir", str(run), "--cfg-options", *options)
    seconds = time.monotonic() - start
    call("test", str(CONFIG), str(run / "latest.pth"), "--work-dir", str(run), "--cfg-options", *options)
    measured = json.loads((run / "test_metrics.json").read_text())
    metrics = {name: measured.get(name, 0.0) for name in WANTED}  # mmdet has none where nothing was detected
    reached = all(metrics[name] >= value for name, value in WANTED.items())
    result = {
        "photos": photos,
        "seconds": round(seconds, 1),
        **{name: round(metrics[name], 4) for name in WANTED},
        "wanted": WANTED,
        "reached": reached,
    }
    print(json.dumps(result), flush=True)
    return 0 if reached else 1


if __name__ == "__main__":
    run_cli(main)
