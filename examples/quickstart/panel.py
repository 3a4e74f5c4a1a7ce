"""The demonstration's picture: what the live run hides and restores, and what the read-outs see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.nn import functional as F

from mst_pretrain import register  # noqa: F401
from mst_pretrain.checkpoints.loading import load_model
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.data.photometric import IMAGENET_MEAN, IMAGENET_STD
from mst_pretrain.runtime.atomic import replacing

from .drawn import CLASSES, Scenes
from .readouts import PATCH, FeatureArm, normalised, predict
from .ridge import LinearHead

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

# Cityscapes' colours of the classes, but for trucks and buses, which are as dark a blue there as cars
PALETTE = np.array(
    [
        *((128, 64, 128), (244, 35, 232), (70, 70, 70), (107, 142, 35), (70, 130, 180)),
        *((220, 20, 60), (0, 0, 142), (0, 150, 150), (250, 170, 30), (119, 11, 32)),
    ],
    np.uint8,
)


@dataclass(frozen=True)
class PanelColumn:
    """A column of the picture.

    Attributes:
        title: Above it.
        pictures: One each row, [H, W, 3] uint8 or [H, W] float.
    """

    title: str
    pictures: list[np.ndarray]


@torch.no_grad()
def pretraining_columns(config: Path, checkpoint: Path, images: np.ndarray) -> list[PanelColumn]:
    """Image, teacher's attention, what the student sees and what it restores, by a pretraining's checkpoint.

    Args:
        config: Of the pretraining.
        checkpoint: Of the whole method: student, teacher and decoder.
        images: [B, H, W, 3] uint8.
    """
    cfg = Config.fromfile(config)
    init_default_scope("mmengine")
    model: Any = MODELS.build(cfg.model).eval()
    load_model(model, load_checkpoint(checkpoint), checkpoint)
    attention, mask, restored = model.restore(normalised(images), torch.arange(len(images)))
    assert mask is not None and restored is not None  # shipped.py has both
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = ((restored * std + mean).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()
    hidden = enlarged(mask.float())[..., None] > 0.5
    return [
        PanelColumn("drawn scene", list(images)),
        PanelColumn("attention, live run", list(enlarged(attention))),
        PanelColumn("what the student sees", list(np.where(hidden, np.uint8(127), images))),
        PanelColumn("restored, live run", list(pixels)),
    ]


def enlarged(grid: torch.Tensor) -> np.ndarray:
    """[B, h, w] to [B, 8 h, 8 w] float32, each value a square."""
    return F.interpolate(grid[:, None].float(), scale_factor=PATCH, mode="nearest")[:, 0].numpy()


def label_columns(
    scenes: Scenes, arms: dict[str, tuple[FeatureArm, LinearHead]], device: torch.device | str = "cpu"
) -> list[PanelColumn]:
    """The truth, and what the head of each arm says, in the classes' colours."""
    columns = [PanelColumn("truth", list(PALETTE[scenes.labels]))]
    for title, (arm, head) in arms.items():
        found = predict(arm.describe, [head], scenes.images, device)[0]
        columns.append(PanelColumn(title, list(PALETTE[found.numpy()])))
    return columns


def draw_panel(columns: list[PanelColumn], path: Path) -> Path:
    """Write the picture as a PNG with the classes' colours below it.

    Raises:
        UserError: The file cannot be written.
    """
    rows = len(columns[0].pictures)
    figure, axes = plt.subplots(
        rows, len(columns), figsize=(2.3 * len(columns), 1.32 * rows + 0.5), squeeze=False
    )
    for place, column in enumerate(columns):
        axes[0, place].set_title(column.title, fontsize=9)
        for row, picture in enumerate(column.pictures):
            axes[row, place].imshow(picture, cmap="inferno" if picture.ndim == 2 else None)
            axes[row, place].axis("off")
    patches = [Patch(color=colour / 255, label=name) for name, colour in zip(CLASSES, PALETTE, strict=True)]
    figure.legend(handles=patches, loc="lower center", ncol=len(CLASSES), fontsize=8, frameon=False)
    figure.tight_layout(pad=0.4, rect=(0, 0.5 / (1.32 * rows + 0.5), 1, 1))
    with replacing(path) as part:
        figure.savefig(part, dpi=100, format="png")
    plt.close(figure)
    return path
