"""Data of a dense probe in any layout with label maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .layouts import Found, dataset, recognise, split
from .planning import typical_size

if TYPE_CHECKING:
    from mmengine.config import Config

LARGEST, CROP, STEP = 1024, (512, 1024), 32  # short side and window (height, width) in pixels, its multiple


def put_other_layout(cfg: Config, root: str, seed: int) -> tuple[str, ...] | None:
    """Put data in another layout than Cityscapes' into the probe's config.

    Args:
        cfg: Of the probe.
        root: The data.
        seed: Of the split, where there is no validation part.

    Returns:
        The classes; None of Cityscapes' layout, or where nothing is there, which the probe itself refuses.
    """
    if Path(root, "leftImg8bit").is_dir() or not Path(root).exists():
        return None
    found = recognise(root, "segmentation")
    put_data(cfg, split(found, seed) if found.val is None else found)
    return found.classes


def put_data(cfg: Config, found: Found) -> None:
    """Make data, sizes and linear layer those of data in any layout that is not Cityscapes'.

    Args:
        cfg: Of the probe.
        found: The data, with a validation part.
    """
    height, width = typical_size(found)
    factor = min(1.0, LARGEST / min(height, width))
    size = round(width * factor), round(height * factor)
    crop = tuple(
        max(STEP, min(most, side) // STEP * STEP) for most, side in zip(CROP, size[::-1], strict=True)
    )
    for name, part in (("train", "train"), ("val", "val"), ("test", "val")):
        loader = cfg[f"{name}_dataloader"]
        loader.dataset = dict(**dataset(found, part), pipeline=loader.dataset.pipeline)
        for step in loader.dataset.pipeline:
            if step["type"] in ("RandomResize", "Resize"):
                step["scale"] = size
            elif step["type"] == "RandomCrop":
                step["crop_size"] = crop
    cfg.model.data_preprocessor.size = crop
    cfg.model.test_cfg.update(crop_size=crop, stride=tuple(max(1, side * 2 // 3) for side in crop))
    cfg.model.decode_head.num_classes = len(found.classes)
