"""Frozen features of labelled images, as DINO extracts them."""

from __future__ import annotations

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ..backbones import Trunk, forward_trunk
from ..data.decode import decode_rgb
from ..data.photometric import IMAGENET_MEAN, IMAGENET_STD
from ..data.sources import ImageSource


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


class TransformedImages(Dataset):
    """Decoded, transformed images of a source."""

    def __init__(self, source: ImageSource, transform: v2.Compose) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(decode_rgb(self.source.read(index), self.source.name(index)))


@torch.no_grad()
def extract_features(
    trunk: Trunk,
    source: ImageSource,
    resize: int = 256,
    crop: int = 224,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Tensor:
    """Global features of a source's images, in order.

    Returns:
        [N, D] float32 on the CPU, not normalised.
    """
    trunk = trunk.to(device).eval()
    images = TransformedImages(source, evaluation_transform(resize, crop))
    loader = DataLoader(images, batch_size=batch_size, num_workers=workers)
    batches = track(loader, description="features", disable=not progress)
    return torch.cat([forward_trunk(trunk, batch.to(device)).pooled.float().cpu() for batch in batches])
