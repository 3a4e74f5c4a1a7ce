"""Frozen features of images, as DINO and EsViT extract them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ..data.decode import decode_rgb
from ..data.sources import ImageSource
from ..data.statistics import IMAGENET_MEAN, IMAGENET_STD
from ..method.backbones import Trunk
from ..runtime.devices import autocast, on_host
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from ..training.patient_loader import PatientDataLoader
from .ranks import gather_rows, share

NORMALIZE = v2.Compose(
    [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
)


def evaluation_transform(resize: int = 256, crop: int = 224) -> v2.Compose:
    """Resize the short side (bicubic), centre crop, normalise [code: DINO]: PIL image to [3, crop, crop] float32."""
    resized = v2.Resize(resize, interpolation=v2.InterpolationMode.BICUBIC)
    return v2.Compose([resized, v2.CenterCrop(crop), NORMALIZE])


class TransformedImages(Dataset):
    """Decoded, transformed images of a source."""

    def __init__(self, source: ImageSource, transform: v2.Compose) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(decode_rgb(self.source.read(index), self.source.name(index)))


def block_features(trunk: Trunk, images: Tensor, blocks: int = 1, avgpool: bool = False) -> Tensor:
    """One vector per image from the last blocks, the earliest first; its columns are :func:`feature_columns`.

    ViT: [CLS] of each block, each through the last norm [code: DINO], and with ``avgpool`` the mean of the last
    block's normalised patch tokens behind them. Swin: the mean of each block's tokens, those of the last stage through
    the last norm [code: EsViT].

    Args:
        trunk: In evaluation mode.
        images: [B, 3, H, W] float, normalised.
        blocks: How many; at most all.
        avgpool: Only for a ViT.

    Returns:
        [B, F] float32. ViT-S with 4 blocks: 1536, with ``avgpool`` 1920; Swin-T with 4 blocks: 2304.

    Raises:
        ValueError: ``avgpool`` for a Swin, whose features are means already.
    """
    if isinstance(trunk, SwinTransformer):
        if avgpool:
            raise ValueError("a Swin's features are token means already; avgpool is for a ViT")
        return _swin_block_features(trunk, images, blocks)
    as_tokens: Any = dict(return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True)
    taps = trunk.forward_intermediates(images, indices=blocks, **as_tokens)
    vectors = [prefix[:, 0].float() for _, prefix in taps]
    if avgpool:
        vectors.append(taps[-1][0].float().mean(1))
    return torch.cat(vectors, 1)


def _swin_block_features(trunk: Trunk, images: Tensor, blocks: int) -> Tensor:
    x = trunk.patch_embed(images)
    means = []
    for layer in trunk.layers:
        x = layer.downsample(x)
        for block in layer.blocks:
            x = block(x)
            tokens = trunk.norm(x) if layer is trunk.layers[-1] else x
            means.append(tokens.float().mean((1, 2)))
    return torch.cat(means[-blocks:], 1)


def block_widths(trunk: Trunk) -> list[int]:
    """Width of every block's tokens, in the order of the blocks."""
    if isinstance(trunk, SwinTransformer):
        layers: Any = trunk.layers
        return [block.dim for layer in layers for block in layer.blocks]
    return [trunk.embed_dim] * len(trunk.blocks)


def feature_columns(
    trunk: Trunk, blocks: tuple[int, ...] = (1, 4), avgpool: bool = True
) -> dict[str, tuple[int, int]]:
    """Choices of features as (start, stop) columns of one extraction with the most blocks.

    Args:
        trunk: A ViT or Swin.
        blocks: Numbers of last blocks; one above the depth stands for all blocks.
        avgpool: Each choice also with the mean of the patch tokens; a Swin has no such choice.

    Returns:
        By name: ``last1``, ``last4``, ``last1+avgpool``, ``last4+avgpool``.
    """
    widths = block_widths(trunk)
    counts = sorted({min(count, len(widths)) for count in blocks})
    stop = sum(widths[-counts[-1] :])
    columns = {f"last{count}": (stop - sum(widths[-count:]), stop) for count in counts}
    if avgpool and not isinstance(trunk, SwinTransformer):
        columns |= {f"{name}+avgpool": (start, stop + widths[-1]) for name, (start, _) in columns.items()}
    return columns


def check_size(trunk: Trunk, resize: int, crop: int) -> None:
    """Refuse a crop that does not divide into patches, or is larger than the resized image."""
    patch = trunk.patch_embed.patch_size[0]
    if crop < 1 or crop % patch:
        raise UserError(
            f"--crop {crop} is not a multiple of the model's patch size {patch}. Give one that is."
        )
    if resize < crop:
        raise UserError(
            f"--resize {resize} is smaller than --crop {crop}: the border would be black. Raise it."
        )


@torch.no_grad()
def extract_features(
    trunk: Trunk,
    source: ImageSource,
    resize: int = 256,
    crop: int = 224,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device = "cpu",
    blocks: int = 1,
    avgpool: bool = False,
    what: str = "features",
    indices: Sequence[int] | None = None,
    precision: str = "float32",
    gather: bool = True,
    after_batch: Callable[[], None] = lambda: None,
) -> Tensor:
    """:func:`block_features` of a source's images, in order; each process extracts its share.

    Args:
        trunk: Put on ``device`` and into evaluation mode.
        source: The images.
        resize: Short side; ``crop`` is the side of the centre crop.
        batch_size: Images per forward.
        workers: Decoding processes.
        device: Of the forward.
        blocks: As in :func:`block_features`, with ``avgpool``.
        what: Name in the progress.
        indices: Of N images of the source; None: of all.
        precision: ``float32`` or ``bfloat16``, of the forward.
        gather: Whether every process gets the features of all images; else those of its :func:`share`.
        after_batch: Called after each.

    Returns:
        [N, F], or [len(share(N)), F], float32 on the CPU, not normalised.
    """
    device = torch.device(device)
    trunk = trunk.to(device).eval()
    wanted = range(len(source)) if indices is None else indices
    mine = [wanted[row] for row in share(len(wanted))]
    images = TransformedImages(source, evaluation_transform(resize, crop))
    loader = image_loader(images, device, workers, batch_size=batch_size, sampler=mine)
    width = sum(block_widths(trunk)[-blocks:]) + (block_widths(trunk)[-1] if avgpool else 0)
    rows = torch.empty(len(mine), width)
    forward = partial(device_features, trunk, device, precision, blocks, avgpool)
    done = 0
    for features in on_host(map(forward, Progress(what, len(loader)).over(loader))):
        rows[done : done + len(features)] = features
        done += len(features)
        after_batch()
    return gather_rows(rows, len(wanted)) if gather else rows


def image_loader(images: Dataset, device: torch.device, workers: int, **sampling: Any) -> DataLoader:
    """Batches of images in ``workers`` processes; for a GPU in pinned memory, so that copies do not make it wait."""
    loader: DataLoader = DataLoader(images, num_workers=workers, pin_memory=device.type == "cuda", **sampling)
    return PatientDataLoader.of(loader)


@torch.no_grad()
def device_features(
    trunk: Trunk, device: torch.device, precision: str, blocks: int, avgpool: bool, images: Tensor
) -> Tensor:
    """:func:`block_features` of images [B, 3, H, W] on the host, float32 on the trunk's device."""
    with autocast(device, precision):
        return block_features(trunk, images.to(device, non_blocking=True), blocks, avgpool)
