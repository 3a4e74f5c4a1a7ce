"""Frozen features of labelled images, as DINO extracts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ..backbones import Trunk, forward_trunk
from ..data.datasets import read_rgb
from ..data.photometric import IMAGENET_MEAN, IMAGENET_STD


def evaluation_transform(resize: int = 256, crop: int = 224) -> v2.Compose:
    """Resize the short side (bicubic), centre crop, normalise [code: DINO]: PIL image to [3, crop, crop] float32."""
    return v2.Compose(
        [
            v2.Resize(resize, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(crop),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


class ImageFiles(Dataset):
    """Decoded, transformed images of a list of files."""

    def __init__(self, paths: Sequence[Path], transform: v2.Compose) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(read_rgb(self.paths[index]))


@torch.no_grad()
def extract_features(
    trunk: Trunk,
    paths: Sequence[Path],
    resize: int = 256,
    crop: int = 224,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Tensor:
    """Global features of image files, in order.

    Returns:
        [N, D] float32 on the CPU, not normalised.
    """
    trunk = trunk.to(device).eval()
    files = ImageFiles(paths, evaluation_transform(resize, crop))
    loader = DataLoader(files, batch_size=batch_size, num_workers=workers)
    batches = track(loader, description="features", disable=not progress)
    return torch.cat([forward_trunk(trunk, images.to(device)).pooled.float().cpu() for images in batches])
