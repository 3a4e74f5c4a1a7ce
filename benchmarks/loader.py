"""Photographs to crops: samples per second of one core, ours beside DINO's transform.

    pip install lightly
    python benchmarks/loader.py [--size 500 375] [--photos 64] [--rounds 5] [--profile]

Two global crops of 224 and eight local ones of 96. ``MST, geometry`` is what our workers do: reading, boxes,
decoding, cutting; colours are the device's work. ``MST, colours too`` adds them on the same core, ``MST, kept`` finds
the pixels in memory, ``MST, on the GPU`` decodes and cuts there, where there is one. DINO's transform is
torchvision's on Pillow images, as its authors wrote it, with colours, and without; lightly's is its DINOTransform.
Photographs are drawn: smooth shapes under noise, of quality 90.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import random
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import default_collate
from torchvision import transforms as T

from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.data.device_batches import DeviceBatches, collate_for_device
from mst_pretrain.data.photometric import IMAGENET_MEAN, IMAGENET_STD, MultiCropPreprocessor
from mst_pretrain.data.pixel_cache import PixelCache
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import in_turn, publish, table

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs/pretrain/mst_deit-s_8xb128-300e_in1k.py"
OURS, COLOURED, GEOMETRY = "MST, geometry", "MST, colours too", "DINO, geometry"
KEPT, ON_GPU = "MST, kept", "MST, on the GPU"
PEER, LIGHTLY = "DINO", "lightly DINOTransform"


def photograph(number: int, width: int, height: int) -> bytes:
    """A JPEG of smooth shapes under noise."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    pixels = (smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class PillowBlur:
    """DINO's: a radius between 0.1 and 2, with a probability."""

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() > self.probability:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


class PillowSolarize:
    """DINO's: values from 128 on are inverted, with a probability."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image) if random.random() < 0.2 else image


def dino_views(colours: bool) -> list[Any]:
    """One transform for each of the ten crops [code: DINO]."""

    def view(size: int, scale: tuple[float, float], *last: Any) -> Any:
        steps: list[Any] = [
            T.RandomResizedCrop(size, scale=scale, interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
        ]
        if colours:
            jitter = T.ColorJitter(0.4, 0.4, 0.2, 0.1)
            steps += [T.RandomApply([jitter], p=0.8), T.RandomGrayscale(0.2), *last]
        return T.Compose([*steps, T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    first = view(224, (0.4, 1.0), PillowBlur(1.0))
    second = view(224, (0.4, 1.0), PillowBlur(0.1), PillowSolarize())
    return [first, second, *[view(96, (0.05, 0.4), PillowBlur(0.5))] * 8]


def main(argv: list[str] | None = None) -> None:
    """Time all, or profile ours."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    encoded = [photograph(number, *args.size) for number in range(args.photos)]
    with TemporaryDirectory() as folder:
        for number, photo in enumerate(encoded):
            Path(folder, f"{number}.jpg").write_bytes(photo)
        calls = variants(encoded, folder)
        if args.profile:
            with cProfile.Profile() as profiler:
                calls[OURS]()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(8)
            return
        seconds = in_turn(calls, args.rounds, torch.device("cpu"))
    publish("loader", table(seconds, PEER, args.photos), torch.device("cpu"), **vars(args))


def variants(encoded: list[bytes], folder: str) -> dict[str, Callable[[], None]]:
    """Each makes the crops of all photographs once."""
    from lightly.transforms.dino_transform import DINOTransform

    crops = load_config(CONFIG).train_dataloader.dataset.crops
    ours, colour = UnlabelledImages(folder, crops, seed=0), MultiCropPreprocessor()
    epochs = iter(range(10**6))

    kept = UnlabelledImages(folder, crops, seed=0)
    kept.cache = PixelCache(len(kept), 2**30)
    on_gpu = UnlabelledImages(folder, crops, seed=0, decode="device")

    def geometry(dataset: UnlabelledImages = ours) -> list[dict[str, Any]]:
        epoch = next(epochs)
        return [dataset[epoch, index] for index in range(len(dataset))]

    def coloured() -> None:
        for sample in geometry():
            colour(default_collate([{key: value for key, value in sample.items() if key != "faults"}]))

    def of(views: list[Any]) -> Callable[[], None]:
        def transform() -> None:
            for photo in encoded:
                image = Image.open(io.BytesIO(photo)).convert("RGB")
                for view in views:
                    view(image)

        return transform

    def cut_on_gpu() -> None:
        DeviceBatches(on_gpu, torch.device("cuda"))(collate_for_device(geometry(on_gpu)))
        torch.cuda.synchronize()

    lightly = DINOTransform()
    return {
        OURS: lambda: geometry() and None,
        COLOURED: coloured,
        KEPT: lambda: geometry(kept) and None,
        **({ON_GPU: cut_on_gpu} if torch.cuda.is_available() else {}),
        PEER: of(dino_views(colours=True)),
        GEOMETRY: of(dino_views(colours=False)),
        LIGHTLY: of([lightly]),
    }


if __name__ == "__main__":
    run_cli(main)
