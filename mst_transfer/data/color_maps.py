"""Label maps whose colors stand for classes, read into labels without writing anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from mst_pretrain.runtime.errors import UserError

UNKNOWN = 254  # a label that no class has
Colors = Sequence[Sequence[int]]  # red, green, blue, label


def labels_of_colors(pixels: np.ndarray, colors: Colors) -> np.ndarray:
    """The label of each pixel, 254 where no entry has its color.

    Args:
        pixels: uint8 [height, width, 3].
        colors: Red, green, blue and label of each known color.

    Returns:
        uint8 [height, width].
    """
    table = np.asarray(colors, np.int64)
    codes = table[:, 0] << 16 | table[:, 1] << 8 | table[:, 2]
    order = np.argsort(codes)
    wide = pixels.astype(np.int64)
    found = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    places = np.searchsorted(codes[order], found).clip(max=len(codes) - 1)
    labels = table[order, 3][places]
    return np.where(codes[order][places] == found, labels, UNKNOWN).astype(np.uint8)


def read_color_map(path: str | Path, colors: Colors) -> np.ndarray:
    """:func:`labels_of_colors` of a file; transparency is left out of account."""
    with Image.open(path) as image:
        return labels_of_colors(np.asarray(image.convert("RGB")), colors)


@TRANSFORMS.register_module()
class LoadColorAnnotations(LoadAnnotations):
    """mmseg's LoadAnnotations for maps whose colors stand for classes, which ``results['colors']`` lists.

    Raises:
        UserError: A map has a color that no class has.
    """

    def _load_seg_map(self, results: dict) -> None:
        labels = read_color_map(results["seg_map_path"], results["colors"])
        unknown = int((labels == UNKNOWN).sum())
        if unknown:
            raise UserError(
                f"{results['seg_map_path']} has {unknown:,} pixels of a color that no class has. Add it to the list of "
                "classes, or correct the map."
            )
        results["gt_seg_map"] = labels
        results["seg_fields"].append("gt_seg_map")
