"""Two steps of MST at full size from DINOv2, DINOv3, MAE and Swin-B files, on real photographs; one JSON line each.

Random weights are written in the family's own format, read by ``init_from`` as a user's file would be, and trained for
two steps: two global crops of 224 px, two local ones of 96 px (98 for patches of 14), 65,536 prototypes, AdamW. A line
has the shapes, the losses, which parts started new, seconds and peak memory of the process, or of the GPU where there
is one.

    python benchmarks/full_size_starts.py [--photos FOLDER] [--batch-size 2] [--starts NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from mst_pretrain.checkpoints import convert_checkpoint
from mst_pretrain.checkpoints.storage import save_safetensors
from mst_pretrain.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError, run_cli

# timm's name, arguments of the trunk, the format that is written
STARTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "dinov2-s14": ("vit_small_patch14_dinov2", {}, "dinov2"),
    "dinov3-s16": ("vit_small_patch16_dinov3", {}, "dinov3"),
    "mae-b16": ("vit_base_patch16_224", {}, "mae"),
    "swin-b": ("swin_base_patch4_window7_224", {}, "timm"),
}
OF_START = "student.backbone."  # the file has every weight of it, or nothing is loaded
PHOTOS = "camvid-as-cityscapes/leftImg8bit/train"  # below $MST_REAL_DATA


def written(name: str, folder: Path) -> Path:
    """A file of random weights in the family's own format."""
    model, arguments, format = STARTS[name]
    torch.manual_seed(1)
    source = timm.create_model(model, num_classes=0, **arguments)
    bare = folder / "timm.safetensors"
    save_safetensors(dict(source.state_dict()), bare)
    if format == "timm":
        return bare
    path = folder / f"{name}.pth"
    if format == "mae":  # as MAE saves it, with a part of the decoder
        torch.save({"model": {**source.state_dict(), "mask_token": torch.zeros(1, 1, 512)}}, path)
    else:
        convert_checkpoint(bare, path, format)
    return path


def views(photos: list[Path], side: int, count: int, scale: tuple[float, float]) -> Tensor:
    """[count, B, 3, side, side] random crops of photographs, normalised."""
    crop = v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=scale),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    images = [Image.open(photo).convert("RGB") for photo in photos]
    return torch.stack([torch.stack([crop(image) for image in images]) for _ in range(count)])


def run(name: str, photos: list[Path]) -> dict[str, Any]:
    """Two steps from one start."""
    model, arguments, format = STARTS[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = written(name, Path(folder))
        torch.manual_seed(0)
        network: Any = MST(
            backbone=dict(name=model, drop_path_rate=0.1, **arguments),
            head=dict(prototypes=65536),
            masking=dict(mode="attention", num=8, prob=0.5),
            decoder=dict(width=256),
            init_from=str(path),
        ).to(device)
    patch = network.student.backbone.patch_embed.patch_size[0]
    local = 98 if patch == 14 else 96
    torch.manual_seed(2)
    batch = dict(
        global_views=views(photos, 224, 2, (0.4, 1.0)).to(device),
        local_views=views(photos, local, 2, (0.05, 0.4)).to(device),
        seeds=torch.arange(len(photos), device=device),
    )
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4 * len(photos) / 256, weight_decay=0.04)
    network.train()
    steps, start = [], time.monotonic()
    for _ in range(2):
        losses = network(**batch)
        loss = sum(value for key, value in losses.items() if "loss" in key)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.update_teacher(0.996)
        steps.append({key: round(float(value.detach()), 4) for key, value in losses.items()})
    without = [key for key, value in network.student.named_parameters() if value.grad is None]
    peak = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    if not all(torch.isfinite(parameter).all() for parameter in trained):
        raise UserError(f"{name}: a weight is not finite after two steps. Report it.")
    return {
        "start": name,
        "model": model,
        "format": format,
        "shapes": {key: list(value.shape) for key, value in batch.items()},
        "steps": steps,
        "new": sorted({".".join(key.split(".")[:2]) for key in names if not key.startswith(OF_START)}),
        "no_gradient": without,
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "seconds_a_step": round((time.monotonic() - start) / 2, 2),
        "peak_memory_gib": round(peak / 2**30, 2),
        "device": environment_info(device)["device"],
        "torch_threads": torch.get_num_threads(),
    }


def main(argv: list[str] | None = None) -> None:
    """One process per start, so that each has its own peak of memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help=f"folder (default: {PHOTOS} below $MST_REAL_DATA)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS), metavar="NAME")
    args = parser.parse_args(argv)
    folder = args.photos or Path(os.environ.get("MST_REAL_DATA", "."), PHOTOS)
    photos = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))[: args.batch_size]
    if len(photos) < args.batch_size:
        raise UserError(f"{folder} has {len(photos)} photographs. Give a folder with more: --photos FOLDER")
    if len(args.starts) == 1:
        print(json.dumps(run(args.starts[0], photos)), flush=True)
        return
    for name in args.starts:
        options = ["--photos", str(folder), "--batch-size", str(args.batch_size), "--starts", name]
        subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    run_cli(main)
