"""Dense probe of the study: frozen patch features, one linear layer, per-image confusion on CamVid's val frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import normalize

from mst_pretrain.data.decode import read_rgb
from mst_pretrain.data.photometric import IMAGENET_MEAN, IMAGENET_STD
from mst_transfer.data.layouts import cityscapes_pairs
from mst_transfer.evaluation.segmentation_scores import confusion_matrix

IGNORED = 255
DenseFeatures = Callable[[Tensor], Tensor]  # normalised images [B, 3, H, W] -> features [B, D, h, w]


@dataclass
class Frames:
    """Frames of one split, resized, and their label maps as they are.

    Attributes:
        images: [N, 3, H, W] uint8.
        labels: [N, h, w] int64, class 0..C-1 or 255.
    """

    images: Tensor
    labels: Tensor


def load_frames(
    root: Path, split: str, size: tuple[int, int], train_ids: list[int] | None
) -> tuple[Frames, list[int]]:
    """All frames of a split of a folder in Cityscapes' layout.

    Args:
        root: The folder.
        split: ``train`` or ``val``.
        size: (height, width) of the network's input.
        train_ids: Which label ids are the classes; None takes those that occur.

    Raises:
        UserError: As :func:`cityscapes_pairs`.
    """
    images, labels = [], []
    for path, label_map in zip(
        *cityscapes_pairs(root / "leftImg8bit" / split, root / "gtFine" / split), strict=True
    ):
        image = read_rgb(path).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        with Image.open(label_map) as label:
            labels.append(torch.from_numpy(np.array(label)))
    raw = torch.stack(labels).long()
    train_ids = train_ids or [int(i) for i in raw.unique() if i != IGNORED]
    table = torch.full((256,), IGNORED)
    table[torch.tensor(train_ids)] = torch.arange(len(train_ids))
    return Frames(torch.stack(images), table[raw]), train_ids


def normalise(images: Tensor) -> Tensor:
    """[B, 3, H, W] uint8 to ImageNet-normalised float32."""
    return normalize(images.float() / 255, IMAGENET_MEAN, IMAGENET_STD)


def cell_shares(labels: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """How much of each cell of a grid has which label: [N, h, w] to [N, classes, *grid], sums at most 1."""
    shares = []
    for label in labels.split(16):
        one_hot = F.one_hot(torch.where(label == IGNORED, classes, label), classes + 1)[..., :classes]
        shares.append(F.adaptive_avg_pool2d(one_hot.permute(0, 3, 1, 2).float(), grid))
    return torch.cat(shares)


@torch.no_grad()
def extract(features: DenseFeatures, images: Tensor, device: torch.device | str, batch: int = 8) -> Tensor:
    """[N, D, h, w] float16 on the device."""
    return torch.cat([features(normalise(part.to(device))).half() for part in images.split(batch)])


def probe(
    features: DenseFeatures,
    train: Frames,
    val: Frames,
    classes: int,
    seed: int,
    device: torch.device | str = "cpu",
    epochs: int = 20,
    batch: int = 8,
    lr: float = 1e-2,
) -> Tensor:
    """Train one linear layer on frozen features; val's confusion.

    Features are standardised with the training frames' mean and deviation, which keeps the layer linear. The loss is
    the cross entropy to each cell's label shares; logits are enlarged to the label map before the argmax.

    Returns:
        [N, classes, classes] int64: per val frame, true class by predicted class.
    """
    x = extract(features, train.images, device)
    mean = x.float().mean((0, 2, 3), keepdim=True)
    std = x.float().std((0, 2, 3), keepdim=True) + 1e-6
    shares = cell_shares(train.labels, (x.shape[2], x.shape[3]), classes).to(device)
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Conv2d(x.shape[1], classes, 1, device=device)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=0.0)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            log_probs = layer((x[rows].float() - mean) / std).log_softmax(1)
            loss = -(shares[rows] * log_probs).sum() / shares[rows].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    confusion = []
    with torch.no_grad():
        for start in range(0, len(val.images), batch):
            part = slice(start, start + batch)
            logits = layer((extract(features, val.images[part], device).float() - mean) / std)
            logits = F.interpolate(logits, val.labels.shape[1:], mode="bilinear", align_corners=False)
            confusion.append(confusions(val.labels[part], logits.argmax(1).cpu(), classes))
    return torch.cat(confusion)


def confusions(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """[N, h, w] twice to [N, classes, classes] int64 counts."""
    pairs = zip(predicted.numpy(), labels.numpy(), strict=True)
    return torch.stack([torch.from_numpy(confusion_matrix(*pair, classes, IGNORED)) for pair in pairs])


def position_prior(train: Frames, val: Frames, classes: int) -> Tensor:
    """The most frequent training label at each pixel as the prediction for every val frame."""
    counts = torch.stack([(train.labels == c).sum(0) for c in range(classes)])
    guess = counts.argmax(0).expand_as(val.labels)
    return confusions(val.labels, guess, classes)


def mean_iou(confusion: Tensor) -> Tensor:
    """mIoU in per cent over classes that occur: [..., C, C] to [...]."""
    confusion = confusion.double()
    hit = confusion.diagonal(dim1=-2, dim2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - hit
    occurs = confusion.sum(-1) > 0
    return 100 * (hit / union.clamp(min=1) * occurs).sum(-1) / occurs.sum(-1)
