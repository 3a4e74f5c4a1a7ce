"""Does everything run on this GPU? A JSON line per case as it ends: losses, images/s, peak memory. See gpu_smoke.sh.

MST DeiT-S and Swin-T: 50 steps in float16 and bfloat16, stopped at 30 and resumed. Mask R-CNN and UperNet from
their full-size configs: 20 iterations with and without AMP (skipped, by name, where mmdet or mmseg is missing).
The loss of one float32 batch is the same on CPU and GPU. ``--rehearse`` runs it all tiny, on the CPU, in float32.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from mmengine.runner import Runner

import mst_pretrain  # noqa: F401
from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.training.runner import build_runner

ROOT = Path(__file__).resolve().parent.parent
PRETRAIN = {
    "deit-s": "configs/pretrain/mst_deit-s_8xb128-300e_in1k.py",
    "swin-t": "configs/pretrain/mst_swin-t_8xb128-300e_in1k.py",
}
TRANSFER = {"mask_rcnn": "configs/coco/mask_rcnn_mst.py", "upernet": "configs/cityscapes/upernet_mst.py"}


class Recorder(Hook):
    """Keeps each iteration's loss, duration and peak of the device's memory."""

    priority = "NORMAL"  # before the logger, which resets the peak

    def __init__(self) -> None:
        self.peak = 0
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Reading the loss waits for the device, so the clock stops after the work."""
        self.losses.append(float(outputs["loss"]))
        self.seconds.append(time.perf_counter() - self.start)
        if torch.cuda.is_available():
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())


def train(cfg: Config, images_per_step: int) -> dict[str, Any]:
    """Run a config; what it cost and where the loss went."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    runner = build_runner(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    steady = sorted(recorder.seconds)[len(recorder.seconds) // 2]
    return {
        "iterations": len(recorder.losses),
        "first_loss": round(recorder.losses[0], 4),
        "last_loss": round(recorder.losses[-1], 4),
        "images_per_second": round(images_per_step / steady, 2),
        "peak_memory_gib": round(recorder.peak / 2**30, 3) if recorder.peak else None,
    }


def pretrain_case(name: str, dtype: str, images: Path, work: Path, rehearse: bool) -> dict[str, Any]:
    """30 steps, then resume to 50."""
    cfg = Config.fromfile(ROOT / PRETRAIN[name])
    batch, first, last = (2, 2, 4) if rehearse else (32, 30, 50)
    cfg.work_dir = str(work / f"{name}_{dtype}")
    cfg.train_dataloader.update(
        batch_size=batch, num_workers=0 if rehearse else 8, persistent_workers=not rehearse
    )
    cfg.train_dataloader.dataset.data_root = str(images)
    cfg.default_hooks.logger.interval = 10
    if rehearse:
        shrink(cfg)
    else:
        cfg.optim_wrapper.update(type="MSTAmpOptimWrapper", dtype=dtype)
    cfg.train_cfg.max_iters = first
    started = train(copy.deepcopy(cfg), batch)
    cfg.train_cfg.max_iters = last
    cfg.resume = True
    resumed = train(cfg, batch)
    if resumed["iterations"] != last - first:
        raise UserError(f"{name} {dtype}: resumed run made {resumed['iterations']} steps, not {last - first}")
    return {**started, "resumed": resumed}


def shrink(cfg: Config) -> None:
    """Small crops and few prototypes, for the rehearsal without a GPU."""
    cfg.model.head.prototypes = 256
    crops = cfg.train_dataloader.dataset.crops
    crops.local_count = 1
    crops.local_crop.size = 32
    for crop in crops.global_crops:
        crop.size = 64


def same_loss(name: str, images: Path, rehearse: bool) -> dict[str, Any]:
    """One float32 batch through one model on both devices."""
    cfg = Config.fromfile(ROOT / PRETRAIN[name])
    if rehearse:
        shrink(cfg)
    torch.manual_seed(0)
    cfg.model.backbone.drop_path_rate = 0.0
    model = MODELS.build(cfg.model)
    dataset = UnlabelledImages(str(images), cfg.train_dataloader.dataset.crops)
    from mmengine.dataset import default_collate

    batch = default_collate([dataset[0, i] for i in range(2)])
    losses = {}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for device in ("cpu", "cuda" if torch.cuda.is_available() else "cpu"):
        model = model.to(device)
        with torch.no_grad():
            data = model.data_preprocessor(copy.deepcopy(batch), training=True)
            losses[device] = {k: float(v) for k, v in model(**data).items() if "loss" in k}
    cpu, other = losses["cpu"], losses.get("cuda", losses["cpu"])
    difference = max(abs(cpu[k] - other[k]) / abs(cpu[k]) for k in cpu)
    if difference > 1e-3:
        raise UserError(f"{name}: the loss on CPU and GPU differs by {difference:.2e} of its value: {losses}")
    return {"losses": losses, "relative_difference": difference}


def transfer_case(name: str, amp: bool, scenes: Path, work: Path, rehearse: bool) -> dict[str, Any]:
    """20 iterations of a full-size fine-tuning config from random weights."""
    import mst_transfer  # noqa: F401

    cfg = Config.fromfile(ROOT / TRANSFER[name])
    cfg.work_dir = str(work / f"{name}_{'amp' if amp else 'fp32'}")
    cfg.model.backbone.init_cfg = None
    root = scenes / ("coco" if name == "mask_rcnn" else "cityscapes")
    cfg.train_dataloader.dataset.data_root = str(root)
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    if name == "mask_rcnn":
        cfg.train_dataloader.dataset.metainfo = dict(classes=("person", "car", "truck", "bus", "bicycle"))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_cfg.max_iters = 1 if rehearse else 20
    cfg.train_cfg.pop("val_interval", None)
    if not rehearse:
        cfg.optim_wrapper.type = "AmpOptimWrapper" if amp else "OptimWrapper"
        cfg.optim_wrapper.pop("loss_scale", None)
    return train(cfg, 2)


def cases(work: Path, rehearse: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every case by its name."""
    scenes, found = work / "scenes", {}
    images = scenes / "coco/train2017"
    for name in PRETRAIN:
        found[f"{name} cpu = gpu"] = partial(same_loss, name, images, rehearse)
        for dtype in ("float32",) if rehearse else ("float16", "bfloat16"):
            found[f"{name} {dtype}"] = partial(pretrain_case, name, dtype, images, work, rehearse)
    for name in TRANSFER:
        if importlib.util.find_spec("mmdet") is None or importlib.util.find_spec("mmseg") is None:
            found[name] = lambda: {"skipped": "mmdet or mmseg is not installed"}
            continue
        for amp in (False,) if rehearse else (False, True):
            title = f"{name} {'amp' if amp else 'float32'}"
            found[title] = partial(transfer_case, name, amp, scenes, work, rehearse)
    return found


def main() -> None:
    """Run every case; print each one's line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="cases with such a text")
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny, on the CPU: only shows that the script runs"
    )
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.rehearse:
        raise UserError(
            "no CUDA device is visible. Run on a GPU machine, or with --rehearse to try the script."
        )
    from examples.quickstart import street

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        street.generate(work / "scenes", seed=0, train=64, val=4)
        print(json.dumps(environment_info()))
        for name, case in cases(work, args.rehearse).items():
            if any(text in name for text in args.only):
                start = time.perf_counter()
                result = case()
                print(json.dumps({name: result, "wall": round(time.perf_counter() - start, 1)}), flush=True)


if __name__ == "__main__":
    run_cli(main)
