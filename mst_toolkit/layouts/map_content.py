"""The pixels of one label map: how many of each id or color."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .class_files import Color
from .found import Colors

UNLABELLED = 255
DEEP = 65535  # 16 bits; read as 255


@dataclass(frozen=True)
class MapContent:
    """Pixels of one map.

    Attributes:
        ids: Number of pixels of each value of one channel; 255 stands for 65535 too.
        colors: Number of pixels of each red, green and blue of three channels.
        palette: Color of each value in it, of a palette's PNG.
        is_jpeg: It is stored with loss.
    """

    ids: Counter[int] = field(default_factory=Counter)
    colors: Counter[Color] = field(default_factory=Counter)
    palette: dict[int, Color] = field(default_factory=dict)
    is_jpeg: bool = False


def read_map(path: Path) -> MapContent | None:
    """The pixels of a label map; None where it cannot be decoded, which :func:`check` names."""
    import numpy as np
    from PIL import Image

    from mst_transfer.data.reading import is_lossy

    try:
        with Image.open(path) as image:
            is_jpeg = is_lossy(path, image)
            if image.mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
                pixels = np.asarray(image.convert("RGB")).astype(np.int64)
                codes, counts = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_counts=True)
                known = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes]
                colors = Counter(dict(zip(known, counts.tolist(), strict=True)))
                return MapContent(colors=colors, is_jpeg=is_jpeg)
            values, counts = np.unique(np.asarray(image), return_counts=True)
            palette = image.getpalette() if image.mode == "P" else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    ids: Counter[int] = Counter()
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        ids[UNLABELLED if value == DEEP else int(value)] += count
    flat = palette or []
    own = {v: (flat[3 * v], flat[3 * v + 1], flat[3 * v + 2]) for v in ids if 3 * v + 2 < len(flat)}
    return MapContent(ids, palette=own, is_jpeg=is_jpeg)


def pixels_by_label(
    content: MapContent, values: Mapping[int, int] | None, colors: Colors | None
) -> Counter[int]:
    """Pixels of each label of a map, 255 included, by the meaning of its values or colors."""
    counts: Counter[int] = Counter()
    by_color = {(red, green, blue): label for red, green, blue, label in colors or ()}
    for color, count in content.colors.items():
        counts[by_color.get(color, UNLABELLED)] += count
    for value, count in content.ids.items():
        counts[(values or {}).get(value, UNLABELLED)] += count
    return counts
