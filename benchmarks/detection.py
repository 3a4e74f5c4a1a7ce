"""Training iterations of Mask R-CNN at 800 x 1333 with our backbones beside mmdet's own Swin-T: time and memory.

    python benchmarks/detection.py --coco DATA/coco-mini [--batch 2] [--rounds 5] [--steps 10]

Each variant is a shipped config (mmdet's own: ``mask_rcnn_mst.py`` with mmdet's SwinTransformer for a backbone), its
optimiser, and the same two photographs of ``--coco`` with the most objects, resized to exactly 800 x 1333 (padded to
800 x 1344). Variants are timed in turn, ``--rounds`` times ``--steps`` iterations each, from random weights, without
loading of data; AMP is float16 with MMEngine's dynamic loss scale. Prints one JSON line: median seconds of an
iteration, ratios to mmdet's Swin-T round by round (their median), peak memory of one model alone, and, the check that
the two Swins are one function on this device too, the largest deviation of their outputs on the same weights.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn

import mst_transfer  # noqa: F401  registers the backbones
from mst_pretrain.checkpoints.timm_keys import MM_SWIN
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError, run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import wait

ROOT = Path(__file__).resolve().parent.parent
WARM = 3  # iterations before any is timed
OWN, MMDET, VIT = "MSTSwin, Swin-T", "mmdet SwinTransformer, Swin-T", "MSTVisionTransformer, DeiT-S"
CONFIGS = {
    OWN: "configs/coco/mask_rcnn_mst.py",
    MMDET: "configs/coco/mask_rcnn_mst.py",
    VIT: "configs/coco/mask_rcnn_mst_deit-s_1x.py",
}


def config_of(variant: str) -> Config:
    """The shipped config with random weights; mmdet's backbone where the variant says so."""
    cfg = load_config(ROOT / CONFIGS[variant])
    if variant == MMDET:
        cfg.model.backbone = Config(
            dict(
                type="mmdet.SwinTransformer",
                embed_dims=96,
                depths=(2, 2, 6, 2),
                num_heads=(3, 6, 12, 24),
                window_size=7,
                out_indices=(0, 1, 2, 3),
                drop_path_rate=cfg.model.backbone.drop_path_rate,
            )
        )
    cfg.model.backbone.init_cfg = None
    return cfg


def photographs(coco: Path, count: int, size: Sequence[int]) -> dict[str, Any]:
    """A batch of the photographs with the most objects, all of ``size``, as the config's dataset packs them."""
    cfg = load_config(ROOT / CONFIGS[OWN]).train_dataloader.dataset
    cfg.data_root = str(coco)
    cfg.pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="Resize", scale=(size[1], size[0]), keep_ratio=False),
        dict(type="PackDetInputs"),
    ]
    dataset = DATASETS.build(cfg)
    objects = [len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))]
    chosen = sorted(range(len(dataset)), key=lambda i: -objects[i])[:count]
    return pseudo_collate([dataset[i] for i in chosen])


def trainer(variant: str, amp: bool, batch: dict[str, Any], device: str) -> Callable[[], None]:
    """A function that makes one training iteration."""
    cfg = config_of(variant)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device).train()
    cfg.optim_wrapper.type = "AmpOptimWrapper" if amp else "OptimWrapper"
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def step() -> None:
        model.train_step(copy.deepcopy(batch), optim_wrapper=wrapper)

    return step


def measure(amp: bool, batch: dict[str, Any], device: str, rounds: int, steps: int) -> dict[str, Any]:
    """All variants in turn."""
    seconds: dict[str, list[float]] = {variant: [] for variant in CONFIGS}
    memory: dict[str, float | None] = {}
    train: dict[str, Callable[[], None]] = {}
    for variant in CONFIGS:
        gc.collect()
        before = 0
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        train[variant] = trainer(variant, amp, batch, device)
        for _ in range(WARM):
            train[variant]()
        wait(torch.device(device))
        memory[variant] = (
            round((torch.cuda.max_memory_allocated() - before) / 2**30, 3) if device == "cuda" else None
        )
    for _ in range(rounds):
        for variant, step in train.items():
            wait(torch.device(device))
            start = time.perf_counter()
            for _ in range(steps):
                step()
            wait(torch.device(device))
            seconds[variant].append((time.perf_counter() - start) / steps)
    return {
        variant: {
            "seconds": round(statistics.median(seconds[variant]), 4),
            "rounds": [round(value, 4) for value in seconds[variant]],
            "to_mmdet": round(
                statistics.median(a / b for a, b in zip(seconds[variant], seconds[MMDET], strict=True)), 3
            ),
            "peak_memory_gib": memory[variant],
        }
        for variant in CONFIGS
    }


def swin_deviation(device: str, size: Sequence[int]) -> float:
    """Largest deviation of MSTSwin's outputs from mmdet's, each relative to the output's largest value, float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    ours, theirs = (MODELS.build(config_of(variant).model.backbone) for variant in (OWN, MMDET))
    for parameter in ours.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.05)
    theirs.load_state_dict(MM_SWIN.from_timm(ours.trunk.state_dict()), strict=False)
    for index in range(4):
        getattr(theirs, f"norm{index}").load_state_dict(getattr(ours, f"norm{index}").state_dict())
    images = torch.randn(1, 3, *size, device=device)
    with torch.no_grad():
        for backbone in (ours, theirs):
            backbone.to(device).eval()  # mmdet's returns None
        pairs = zip(ours(images), theirs(images), strict=True)
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def main(argv: list[str] | None = None) -> None:
    """With AMP and without, one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coco", type=Path, required=True, help="a data set in COCO's layout")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--cpu", action="store_true", help="to try the script; float32 only")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available() and not args.cpu:
        raise UserError("no CUDA device is visible. Run on a GPU machine, or with --cpu to try the script.")
    device = "cpu" if args.cpu else "cuda"
    MMLogger.get_instance("mmengine", log_level="WARNING")  # not a line per parameter
    DefaultScope.get_instance("detection", scope_name="mmdet")
    batch = photographs(args.coco, args.batch, args.size)
    result: dict[str, Any] = {
        "input": [list(image.shape) for image in batch["inputs"]],
        "objects": [len(sample.gt_instances) for sample in batch["data_samples"]],
        "batch": args.batch,
        "steps": args.steps,
    }
    for amp in (False,) if args.cpu else (False, True):
        result["amp" if amp else "float32"] = measure(amp, batch, device, args.rounds, args.steps)
    result["largest Swin deviation"] = swin_deviation(device, args.size)
    print(json.dumps({**result, **environment_info(torch.device(device))}))


if __name__ == "__main__":
    run_cli(main)
