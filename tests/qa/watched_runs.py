"""k-NN and RankMe over a pretraining that learns, and over one that collapses because nothing is centred.

    python tests/qa/watched_runs.py OUT [--steps 600]

Draws random patterns in the shades of 8 colours, which are the classes: 1,800 to train on and 600 labelled ones, of
which a fifth is held out. Both runs are configs/quickstart/pretrain.py with a smaller network; the second has neither
centre nor decoder nor masks. Prints one line a measurement, and writes OUT/NAME/report.html. Ends with an error where
the curves do not tell the two apart.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
IMAGES, LABELLED, MEASUREMENTS, BATCH, SIDE = 1800, 600, 8, 32, 48
COLORS = 8  # classes
RATIO = 1.3  # of the two runs' last RankMe, at least; chosen after one run in which it was 1.69
COMMON = [
    *("model.backbone.embed_dim=64", "model.backbone.depth=3", "model.backbone.num_heads=2"),
    *("model.backbone.img_size=32", "model.backbone.patch_size=4", "model.masking.num=4"),
    *("model.head.prototypes=128", "model.head.hidden_dim=64", "model.head.bottleneck_dim=32"),
    *(f"train_dataloader.batch_size={BATCH}", "train_dataloader.num_workers=0"),
    *("train_dataloader.persistent_workers=False", "train_cfg.max_epochs=None"),
    *(
        "train_dataloader.dataset.crops.global_crops.0.size=32",
        "train_dataloader.dataset.crops.local_count=2",
    ),
    *(
        "train_dataloader.dataset.crops.global_crops.1.size=32",
        "train_dataloader.dataset.crops.local_crop.size=16",
    ),
    "train_dataloader.dataset.crops.local_crop.scale=0.2,0.5",
    *("default_hooks.schedule.warmup_epochs=0.5", "default_hooks.health.collapse_patience=0"),
    *("default_hooks.schedule.base_lr=1e-3", f"default_hooks.schedule.base_batch={BATCH}"),
]
RUNS = {
    "learns": ["default_hooks.schedule.momentum=0.98,1.0", "model.head.norm=bn"],
    "collapses": [
        *("model.distillation.center_momentum=1.0", "default_hooks.schedule.momentum=0.9,0.9"),
        *("model.decoder=None", "model.masking.mode=none"),
    ],
}


def texture(color: int, rng: np.random.Generator) -> Image.Image:
    """One picture of a class: a dark and a bright shade of a colour in a random pattern, and noise."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + rng.uniform(0, 40, (2, 1, 1))
    wave = 2 * np.pi / rng.uniform(4, 14)
    angle = rng.uniform(0, np.pi)
    stripes = np.sin(wave * (x * np.cos(angle) + y * np.sin(angle)))
    pattern = [stripes, np.sin(wave * x) * np.sin(wave * y) * 2, np.sin(wave * np.hypot(x - 40, y - 40))]
    share = 1 / (1 + np.exp(-4 * pattern[rng.integers(3)]))[..., None]
    hue = (color + rng.uniform(-0.25, 0.25)) / COLORS
    shades = [
        np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.15, 0.4), value)) * 255
        for value in (rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.0))
    ]
    pixels = share * shades[0] + (1 - share) * shades[1] + rng.normal(0, 40, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw(folder: Path, count: int, seed: int) -> Path:
    """``folder/CLASS/NUMBER.png``."""
    for number in range(count):
        color = number % COLORS
        path = folder / f"color{color}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        texture(color, np.random.default_rng([seed, number])).save(path)
    return folder


def train(name: str, out: Path, steps: int) -> list[dict[str, Any]]:
    """One run; its measurements, each with the spread of the features in the log's line before it."""
    work = out / name
    command = [sys.executable, str(ROOT / "tools/train.py"), str(ROOT / "configs/quickstart/pretrain.py")]
    every = steps / MEASUREMENTS / (IMAGES // BATCH)
    options = [
        *(f"data_root={out / 'photos'}", f"train_cfg.max_iters={steps}", "+run_folder=True"),
        *(f"evaluation.knn={out / 'labelled'}", f"evaluation.every_epochs={every}", *COMMON, *RUNS[name]),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [*command, "--work-dir", str(work), "--cfg-options", *options], env=environment, check=True
    )
    found: list[dict[str, Any]] = []
    spread = 0.0
    for line in map(json.loads, (work / "metrics.jsonl").read_text().splitlines()):
        if line["stage"] == "eval":
            found.append({**line, "feature_std": spread})
        spread = line.get("feature_std", spread)
    report = "import sys; from mst_toolkit.api import report; report(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", report, str(work)], env=environment, check=True)
    return found


def main() -> None:
    """Both runs, their curves, and whether these tell them apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    out = args.out.absolute()
    draw(out / "photos", IMAGES, 1)
    draw(out / "labelled", LABELLED, 2)
    curves = {name: train(name, out, args.steps) for name in RUNS}
    for name, lines in curves.items():
        for line in lines:
            print(
                f"{name:<9}  step {line['step']:>5}  knn {line['knn']:5.2f}  RankMe {line['rankme']:6.2f}  "
                f"spread {line['feature_std']:.4f}{'  best' if line['best'] else ''}"
            )
    learns, collapses = curves["learns"], curves["collapses"]
    if not (learns[-1]["knn"] > max(line["knn"] for line in (learns[0], collapses[-1]))):
        sys.exit("k-NN does not tell the two runs apart")
    if not learns[-1]["rankme"] > RATIO * collapses[-1]["rankme"]:
        sys.exit("RankMe does not tell the two runs apart")


if __name__ == "__main__":
    main()
