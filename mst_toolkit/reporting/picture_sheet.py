"""A PNG sheet of what a pretrained network sees in any images.

    python -m mst_toolkit.reporting.picture_sheet RUN IMAGE... --out sheet.png

RUN is a run folder or a pretraining checkpoint, whose config is in it or beside it.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mst_pretrain.data.decode import read_rgb
from mst_pretrain.runtime.atomic import replacing
from mst_pretrain.runtime.errors import UserError, run_cli

from .pictures import COLUMNS, TITLES, SeenImage, load_pretraining, see_images

CELL = 224  # pixels of a picture's short side


def draw_pictures(
    source: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    config: str | Path | None = None,
    short_side: int | None = None,
) -> Path:
    """Write a PNG sheet: one row per image with attention, hidden patches, restoration and feature colours.

    Args:
        source: A run folder or a pretraining checkpoint.
        images: Files.
        out: The PNG.
        config: As in :func:`load_pretraining`.
        short_side: As in :func:`see_images`.

    Raises:
        UserError: There is no image, one cannot be read, or as :func:`load_pretraining`.
    """
    if not images:
        raise UserError(
            "there is no image to show. Give the paths of some: ... IMAGE.jpg IMAGE.jpg --out FILE.png"
        )
    model = load_pretraining(source, config)
    seen = see_images(model, [read_rgb(path) for path in images], short_side)
    with replacing(Path(out)) as part:
        sheet(seen).save(part, format="PNG")
    return Path(out)


def sheet(seen: Sequence[SeenImage]) -> Image.Image:
    """All pictures of some images in rows, with a title above each column; a column that no image has is left out."""
    columns = [name for name in COLUMNS if any(getattr(one, name) is not None for one in seen)]
    rows = [[_cell(getattr(one, name)) for name in columns if getattr(one, name) is not None] for one in seen]
    width, gap, head = max(row[0].width for row in rows), 6, 24
    height = head + sum(row[0].height + gap for row in rows)
    picture = Image.new("RGB", (len(columns) * (width + gap) - gap, height - gap), "white")
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for column, name in enumerate(columns):
        canvas.text((column * (width + gap) + 2, head / 2), TITLES[name], "black", font, anchor="lm")
    top = head
    for row in rows:
        for column, cell in enumerate(row):
            picture.paste(cell, (column * (width + gap), top))
        top += row[0].height + gap
    return picture


def _cell(pixels: np.ndarray) -> Image.Image:
    """A picture whose short side has about 224 pixels; a smaller one is enlarged by a whole factor."""
    factor = max(1, round(CELL / min(pixels.shape[:2])))
    return Image.fromarray(pixels).resize(
        (factor * pixels.shape[1], factor * pixels.shape[0]), Image.Resampling.NEAREST
    )


def main() -> int:
    """The command line of this module."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="a run folder or a pretraining checkpoint")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--out", required=True, help="the PNG to write")
    parser.add_argument(
        "--config", help="its config, if neither the checkpoint holds it nor the run's folder"
    )
    parser.add_argument("--short-side", type=int, help="pixels; as in training by default")
    given = parser.parse_args()
    print(draw_pictures(given.source, given.images, given.out, given.config, given.short_side))
    return 0


if __name__ == "__main__":
    run_cli(main)
