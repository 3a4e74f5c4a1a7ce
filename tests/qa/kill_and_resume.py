"""SIGKILL inside an epoch: is the resumed run the undisturbed one, and what does it become on two processes?

    python tests/qa/kill_and_resume.py [--kills 2] [--workers 0 2] [--seed 0]

A toy pretraining and two toy fine-tunings (by epochs and by iterations) run undisturbed on one process. Then each is
started again, killed with its workers at a random moment after a checkpoint and inside an epoch, and resumed twice from
the same files: on one process, where every tensor must be equal, and on two with half the images each, where sums of
floating-point numbers have another order: there the distance to the undisturbed weights must be below ``TOLERANCE``
of the way from the checkpoint to them. One JSON line; exit code 1 where it is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mst_pretrain.checkpoints.storage import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.qa.stop_and_resume import begin, wait_for  # noqa: E402

IMAGES, BATCH, STEPS, INTERVAL = 18, 4, 44, 10
KILLED_AFTER = (11, 30)  # steps, the first and the last
TOLERANCE = 1e-3
PRETRAIN = """
_base_ = {base!r}
data_root = {images!r}
model = dict(
    backbone=dict(
        name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.0
    ),
    head=dict(prototypes=24, hidden_dim=16, bottleneck_dim=8),
    decoder=None,  # its batch norms know one process's images only
)
train_dataloader = dict(
    batch_size={batch},
    num_workers={workers},
    persistent_workers={workers} > 0,
    pin_memory=False,
    prefetch_factor={prefetch},
    dataset=dict(
        data_root=data_root,
        crops=dict(global_crops=[dict(size=32), dict(size=32)], local_crop=dict(size=16), local_count=2),
    ),
)
train_cfg = dict(max_epochs=40, max_iters={steps})
default_hooks = dict(checkpoint=dict(interval={interval}), logger=dict(interval=1))
"""
FINE_TUNING = """
custom_imports = dict(imports=["mst_transfer", "mst_transfer.training.loops"], allow_failed_imports=False)
runner_type = "MSTRunner"
default_scope = "mmseg"
data_root = {root!r}
classes = ("dark", "bright")
train_dataloader = dict(
    batch_size={batch},
    num_workers={workers},
    persistent_workers={workers} > 0,
    sampler=dict(type={sampler!r}, shuffle=True),
    dataset=dict(
        type="FolderSegmentation",
        data_root=data_root,
        metainfo=dict(classes=classes),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomCrop", crop_size=(32, 32)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ],
    ),
)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor", size=(32, 32), mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True
    ),
    backbone=dict(
        type="MSTVisionTransformer",
        model="vit_tiny_patch16_224",
        model_args=dict(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2),
        pyramid=False,
        out_indices=(1,),
    ),
    decode_head=dict(
        type="FCNHead",
        in_channels=16,
        in_index=0,
        channels=8,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=2,
        norm_cfg=dict(type="GN", num_groups=2),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
train_cfg = {loop}
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=0, end={steps})]
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=1),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval={interval}),
)
env_cfg = dict(dist_cfg=dict(backend="nccl"))
log_processor = dict(type="LogProcessor", by_epoch={by_epoch})
randomness = dict(seed=3)
load_from = None
resume = False
"""
LOOPS = {
    "fine-tuning by epochs": ("DefaultSampler", dict(type="CappedEpochLoop", max_epochs=9, max_iters=STEPS)),
    "fine-tuning by iterations": ("InfiniteSampler", dict(type="ExactIterLoop", max_iters=STEPS)),
}


def draw_data(folder: Path) -> None:
    """Images of colour noise, and the maps of their bright pixels."""
    for index in range(IMAGES):
        rng = np.random.default_rng(index)
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.array(noise.resize((56 + index, 48)))
        for name, values in (("images", pixels), ("labels", (pixels.mean(2) > 127).astype(np.uint8))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / f"{name}/{index}.png")


def write_config(folder: Path, run: str, workers: int, batch: int) -> Path:
    """The config of a run with so many workers and images per process."""
    settings: dict[str, Any] = {"workers": workers, "batch": batch, "steps": STEPS, "interval": INTERVAL}
    path = folder / f"{run.replace(' ', '-')}-{workers}-{batch}.py"
    if run == "pretraining":
        base = str(ROOT / "configs/_base_/mst_pretrain.py")
        text = PRETRAIN.format(
            base=base, images=str(folder / "images"), prefetch=2 if workers else None, **settings
        )
    else:
        sampler, loop = LOOPS[run]
        by_epoch = sampler == "DefaultSampler"
        text = FINE_TUNING.format(root=str(folder), sampler=sampler, loop=loop, by_epoch=by_epoch, **settings)
    path.write_text(text)
    return path


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a run with all its processes."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finish(config: Path, work_dir: Path, processes: int, *arguments: str) -> Path:
    """Train to the end; the last checkpoint.

    Raises:
        RuntimeError: The training failed.
    """
    if begin(config, work_dir, processes, *arguments).wait():
        raise RuntimeError(f"{config} failed, see {work_dir.with_suffix('.log')}")
    return work_dir / "latest.pth"


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, with 64 bits per number."""
    return {key: value.double() for key, value in load_checkpoint(path)["state_dict"].items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Euclidean, of all numbers of two runs."""
    assert one.keys() == other.keys()
    return sum(float((one[key] - other[key]).square().sum()) for key in one) ** 0.5


def main() -> int:
    """Whole runs, killed runs, two comparisons each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=2, help="per run and number of workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--runs", nargs="+", default=["pretraining", *LOOPS])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments, results = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_data(folder)
        for run in args.runs:
            for workers in args.workers:
                config = write_config(folder, run, workers, BATCH)
                of_two = write_config(folder, run, workers, BATCH // 2)
                whole = finish(config, config.with_suffix(""), 1)
                for number in range(args.kills):
                    killed, halves = (folder / f"{config.stem}-{number}-{n}" for n in ("one", "two"))
                    process = begin(config, killed, 1)
                    wait_for(moments.randint(*KILLED_AFTER), killed, process)
                    time.sleep(moments.uniform(0, 0.05))
                    kill(process)
                    step = load_checkpoint(killed / "latest.pth")["meta"]["iter"]
                    shutil.copytree(killed, halves)
                    before = weights_of(halves / "latest.pth")
                    on_one = weights_of(finish(config, killed, 1, "--resume"))
                    on_two = weights_of(finish(of_two, halves, 2, "--resume", str(halves / "latest.pth")))
                    expected = weights_of(whole)
                    results.append(
                        {
                            "run": run,
                            "workers": workers,
                            "resumed_at": step,
                            "differ": sum(not torch.equal(on_one[key], expected[key]) for key in expected),
                            "two_processes": distance(on_two, expected) / distance(before, expected),
                        }
                    )
                    print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    bad = sum(entry["differ"] > 0 or entry["two_processes"] > TOLERANCE for entry in results)
    print(json.dumps({"check": "kill_and_resume", "kills": results, "wrong": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
