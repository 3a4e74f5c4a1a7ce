"""What a pretrained network sees in any images: attention, hidden patches, restoration, colours of its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mst_pretrain.checkpoints.loading import load_model
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.data.photometric import IMAGENET_MEAN, IMAGENET_STD
from mst_pretrain.method.backbones import output_stride
from mst_pretrain.runtime.config import import_custom_modules, load_config
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.resume import recorded

COLUMNS = ("image", "attention", "hidden", "restored", "features")
TITLES = {
    "image": "image",
    "attention": "teacher's attention",
    "hidden": "what the student sees",
    "restored": "restored",
    "features": "colours of the features",
}
LONGEST = 2  # times as long as the short side; what is beyond is cut off
GRAY = 0.5  # in place of a hidden patch


@dataclass(frozen=True)
class SeenImage:
    """What a network sees in one image; pictures are uint8 [H, W, 3] of one size.

    Attributes:
        image: The image as the network gets it.
        attention: The teacher's attention, over the gray image.
        hidden: The image with the hidden patches in gray, or None where nothing is masked.
        restored: The decoder's output, or None without a decoder.
        features: The first three principal components of the patch tokens as red, green and blue.
        hidden_share: Share of the patches that are hidden, in [0, 1].
    """

    image: np.ndarray
    attention: np.ndarray
    hidden: np.ndarray | None
    restored: np.ndarray | None
    features: np.ndarray
    hidden_share: float


def load_pretraining(source: str | Path, config: str | Path | None = None) -> Any:
    """The pretraining model of a run folder or of a checkpoint, in evaluation mode on the CPU.

    Args:
        source: A run folder, whose last checkpoint is taken, or a checkpoint.
        config: Its config file. None: the one in the checkpoint, else ``config.py`` of the run's folder.

    Raises:
        UserError: There is no checkpoint or no config, or they are not a pretraining's.
    """
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    checkpoint = _checkpoint_of(Path(source))
    loaded = load_checkpoint(checkpoint)
    if config is not None:
        cfg = load_config(config)
    elif "config" in (told := recorded(loaded)):
        cfg = Config(told["config"])
    else:
        beside = [folder / "config.py" for folder in (checkpoint.parent, checkpoint.parent.parent)]
        found = next((path for path in beside if path.is_file()), None)
        if found is None:
            raise UserError(
                f"{checkpoint} holds no config, and no config.py is beside it. Give --config FILE."
            )
        cfg = load_config(found)
    if cfg.get("model", {}).get("type") != "MST":
        raise UserError(
            f"{checkpoint} is not of a pretraining with MST, and only such a one has attention, masks and a decoder "
            "to show. Give a run of mst pretrain."
        )
    import_custom_modules(cfg)
    init_default_scope("mmengine")
    settings = cfg.model.to_dict() | {"init_from": None, "compile": None}
    model = MODELS.build(settings).eval()
    load_model(model, loaded, checkpoint)
    return model


def _checkpoint_of(source: Path) -> Path:
    if not source.is_dir():
        return source
    paths = [source / "checkpoints" / f"{name}.pth" for name in ("last", "best")] + [source / "latest.pth"]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise UserError(f"{source} has no checkpoints/last.pth. Give the path of a pretraining checkpoint.")
    return found


def training_size(model: Any) -> int:
    """Pixels of the short side that a model was built for."""
    return int(min(model.student.backbone.patch_embed.img_size))


@torch.no_grad()
def see_images(
    model: Any, images: Sequence[Image.Image], short_side: int | None = None, seed: int = 0
) -> list[SeenImage]:
    """Attention, mask, restoration and feature colours of images.

    Colours are comparable between the images of one call: the components are those of all their tokens together.

    Args:
        model: Of :func:`load_pretraining`.
        images: RGB, of any size; more than twice as long as wide: the middle.
        short_side: Pixels to which the short side is resized, rounded to whole patches; None: as in training.
        seed: Of the mask's draws.
    """
    stride = output_stride(model.student.backbone)
    size = max(1, round((short_side or training_size(model)) / stride)) * stride
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    parts, grids = [], []
    for number, image in enumerate(images):
        pixels = _pixels(_resized(image, size, stride))
        batch = ((pixels - mean) / std)[None]
        attention, mask, restored = model.restore(batch, torch.tensor([seed + number]))
        grids.append(model.teacher_features(batch).grid[0].float())
        parts.append((pixels, attention[0], mask, None if restored is None else restored[0] * std + mean))
    found = []
    for (pixels, attention, mask, restored), colors in zip(parts, feature_colors(grids), strict=True):
        hidden = None if mask is None else _enlarged(mask[0].float(), stride).bool()
        found.append(
            SeenImage(
                _to_uint8(pixels),
                _heat(pixels, _enlarged(attention, stride)),
                None if hidden is None else _to_uint8(torch.where(hidden, GRAY, pixels)),
                None if restored is None else _to_uint8(restored),
                np.repeat(np.repeat(colors, stride, 0), stride, 1),
                0.0 if hidden is None else float(hidden.float().mean()),
            )
        )
    return found


def feature_colors(grids: Sequence[Tensor]) -> list[np.ndarray]:
    """The first three principal components of all tokens as colours.

    Each component is spread from its 2nd to its 98th percentile over [0, 255]; its sign is that of its largest entry.

    Args:
        grids: [D, h, w] each, of any h and w.

    Returns:
        uint8 [h, w, 3] each.
    """
    tokens = torch.cat([grid.flatten(1).T for grid in grids]).double()
    tokens = tokens - tokens.mean(0)
    _, directions = torch.linalg.eigh(tokens.T @ tokens)  # by rising variance
    axes = directions[:, -3:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    values = F.pad(tokens @ (axes * largest.sign()), (0, 3 - axes.shape[1]))
    low, high = (torch.quantile(values, share, dim=0) for share in (0.02, 0.98))
    colors = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    bytes_ = (255 * colors).round().to(torch.uint8).numpy()
    shapes = [grid.shape[1:] for grid in grids]
    ends = np.cumsum([height * width for height, width in shapes])
    return [part.reshape(*shape, 3) for part, shape in zip(np.split(bytes_, ends[:-1]), shapes, strict=True)]


@torch.no_grad()
def nearest_neighbours(
    model: Any, images: Sequence[Image.Image], queries: Sequence[int], count: int = 5
) -> list[list[int]]:
    """The images whose global feature of the teacher is nearest by cosine, the nearest first, never itself.

    Args:
        model: Of :func:`load_pretraining`.
        images: RGB; their middle square is compared.
        queries: Places of the images that are asked about.
        count: At most this many neighbours each.
    """
    from torchvision.transforms.v2.functional import center_crop

    stride = output_stride(model.student.backbone)
    size = max(1, round(training_size(model) / stride)) * stride
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    features = []
    for first in range(0, len(images), 16):
        crops = [
            (_pixels(center_crop(_resized(image, size, stride), [size, size])) - mean) / std
            for image in images[first : first + 16]
        ]
        features.append(model.teacher_features(torch.stack(crops)).pooled.float())
    directions = F.normalize(torch.cat(features), dim=1)
    similarity = directions[list(queries)] @ directions.T
    similarity[torch.arange(len(queries)), list(queries)] = -torch.inf
    order = similarity.argsort(stable=True, dim=1, descending=True)
    return [row[: min(count, len(images) - 1)].tolist() for row in order]


def _resized(image: Image.Image, size: int, stride: int) -> Image.Image:
    """Short side ``size``, long side a multiple of ``stride`` of at most twice that."""
    from torchvision.transforms.v2.functional import center_crop

    short, long = min(image.size), max(image.size)
    if long > LONGEST * short:
        sides = [min(side, LONGEST * short) for side in (image.height, image.width)]
        image, long = center_crop(image, sides), LONGEST * short
    other = max(1, round(long * size / short / stride)) * stride
    return image.resize(
        (other, size) if image.width >= image.height else (size, other), Image.Resampling.BICUBIC
    )


def _pixels(image: Image.Image) -> Tensor:
    """[3, H, W] float32 in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def _heat(pixels: Tensor, attention: Tensor) -> np.ndarray:
    """Attention from its lowest to its highest value, in colours over the gray image."""
    attention = attention.float()
    span = (attention.max() - attention.min()).clamp(min=1e-12)
    colors = torch.from_numpy(colormaps["inferno"](((attention - attention.min()) / span).numpy())[..., :3])
    gray = pixels.mean(0)[..., None]
    return _to_uint8((0.7 * colors + 0.3 * gray).permute(2, 0, 1))


def _enlarged(grid: Tensor, stride: int) -> Tensor:
    return F.interpolate(grid[None, None].float(), scale_factor=stride, mode="nearest")[0, 0]


def _to_uint8(pixels: Tensor) -> np.ndarray:
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
