"""k-NN and RankMe over a pretraining that learns, and over one that collapses because nothing is centred.

    python tests/qa/watched_runs.py SHARDS VAL OUT [--steps 600]

SHARDS are training images, VAL labelled ones of which a fifth is held out, e.g. of Tiny-ImageNet-100. Both runs are
configs/quickstart/pretrain.py with a smaller network; the second has neither centre nor decoder nor masks, and its
teacher follows at once. Prints one line a measurement, and writes OUT/NAME/report.html. Ends with an error where
the curves do not tell the two apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENTS, BATCH = 6, 16
COMMON = [
    *("model.backbone.embed_dim=96", "model.backbone.depth=3", "model.backbone.num_heads=3"),
    *("model.head.prototypes=256", "model.head.hidden_dim=128", "model.head.bottleneck_dim=32"),
    *(f"train_dataloader.batch_size={BATCH}", "train_dataloader.num_workers=0"),
    *("train_dataloader.persistent_workers=False", "train_cfg.max_epochs=None"),
    *("default_hooks.schedule.warmup_epochs=0.05", "default_hooks.health.collapse_patience=0"),
    *("default_hooks.schedule.base_lr=5e-4", f"default_hooks.schedule.base_batch={BATCH}"),
]
RUNS = {
    "learns": ["default_hooks.schedule.momentum=0.98,1.0", "model.head.norm=bn"],
    "collapses": [
        *("model.distillation.center_momentum=1.0", "default_hooks.schedule.momentum=0.9,0.9"),
        *("model.decoder=None", "model.masking.mode=none", "model.masking.num=1"),
    ],
}


def train(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One run; its measurements, each with the spread of the features in the log's line before it."""
    work = args.out / name
    command = [sys.executable, str(ROOT / "tools/train.py"), str(ROOT / "configs/quickstart/pretrain.py")]
    every = args.steps / MEASUREMENTS / (args.images // BATCH)
    options = [
        *(f"data_root={args.shards}", f"train_cfg.max_iters={args.steps}", "+run_folder=True"),
        *(f"evaluation.knn={args.val}", f"evaluation.every_epochs={every}", *COMMON, *RUNS[name]),
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
    parser.add_argument("shards")
    parser.add_argument("val")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=5000, help="in SHARDS")
    args = parser.parse_args()
    curves = {name: train(name, args) for name in RUNS}
    for name, lines in curves.items():
        for line in lines:
            print(
                f"{name:<9}  step {line['step']:>5}  knn {line['knn']:5.2f}  RankMe {line['rankme']:6.2f}  "
                f"spread {line['feature_std']:.4f}{'  best' if line['best'] else ''}"
            )
    learns, collapses = curves["learns"][-1], curves["collapses"][-1]
    if not (learns["knn"] > collapses["knn"] and learns["rankme"] > 2 * collapses["rankme"]):
        sys.exit("the curves do not tell the two runs apart")


if __name__ == "__main__":
    main()
