"""Street scenes for the demonstration, in memory or as photographs: neither mmdet nor pycocotools is needed.

python -m examples.quickstart.drawn work_dirs/street_photos    # the 20,000 that the shipped checkpoint was made of
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .street_scenes import BUILDING, ROAD, SIDEWALK, SKY, VEGETATION
from .street_things import THINGS, render

CLASSES = ("road", "sidewalk", "building", "vegetation", "sky", *THINGS)
TRAIN_IDS = (ROAD, SIDEWALK, BUILDING, VEGETATION, SKY, *THINGS.values())
HEIGHT, WIDTH = 128, 256
OF_SHIPPED = {"seed": 1000, "count": 20_000}  # no demonstration and no judgement uses this seed
# What the scenes are for: their number in the random seed, and their look. The two of LOOKS share no hue and no
# spatial period, so that validation scenes differ in both from all that a network or a head was trained on.
PARTS = {"unlabelled": (2, "train"), "labelled": (3, "train"), "val": (4, "val")}


@dataclass(frozen=True)
class Scenes:
    """Drawn scenes and what is where in them.

    Attributes:
        images: [N, height, width, 3] uint8.
        labels: [N, height, width] uint8, index into :data:`CLASSES`.
    """

    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int) -> Scenes:
        """The first ``count`` scenes."""
        return Scenes(self.images[:count], self.labels[:count])

    def __len__(self) -> int:
        return len(self.images)


def draw_one(seed: int, part: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene: image [height, width, 3] uint8 and class [height, width] uint8, a function of the arguments."""
    number, look = PARTS[part]
    image, train_ids, _ = render(np.random.default_rng([seed, number, index]), look, HEIGHT, WIDTH)
    table = np.zeros(256, np.uint8)
    table[list(TRAIN_IDS)] = np.arange(len(TRAIN_IDS))
    return image, table[train_ids]


def draw(seed: int, part: str, count: int, over: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> Scenes:
    """Draw ``count`` scenes of a part on all cores; more of them begin with the fewer ones.

    Args:
        seed: 0 or more.
        part: A key of :data:`PARTS`.
        count: 1 or more.
        over: Passes the scenes on as they are finished, to show progress.
    """
    drawn = list(over(_on_all_cores(partial(draw_one, seed, part), count)))
    images, labels = zip(*drawn, strict=True)
    return Scenes(np.stack(images), np.stack(labels))


def save_photo(folder: Path, seed: int, part: str, index: int) -> None:
    """Draw one scene and write its image alone, as a JPEG."""
    path = folder / f"{index // 1000:03d}" / f"street_{index:06d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".part")
    Image.fromarray(draw_one(seed, part, index)[0]).save(whole, "JPEG", quality=92)
    whole.replace(path)


def draw_photos(
    folder: Path, seed: int, count: int, over: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> None:
    """Draw unlabelled scenes into a folder of JPEGs, a thousand in each folder below it."""
    for _ in over(_on_all_cores(partial(save_photo, folder, seed, "unlabelled"), count)):
        pass


def _on_all_cores(work: Callable[[int], Any], count: int) -> Iterable[Any]:
    """``work(0)`` to ``work(count - 1)`` in order; in this process where a pool is not worth its start."""
    workers = min(os.cpu_count() or 1, count // 16)
    if workers < 2:
        yield from map(work, range(count))
        return
    method = "fork" if sys.platform == "linux" else None
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    with multiprocessing.get_context(method).Pool(workers, signal.signal, ignore) as pool:
        yield from pool.imap(work, range(count), chunksize=8)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, draw unlabelled scenes."""
    from mst_pretrain.runtime.progress import Progress

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=OF_SHIPPED["seed"])
    parser.add_argument("--count", type=int, default=OF_SHIPPED["count"])
    args = parser.parse_args(argv)
    draw_photos(args.folder, args.seed, args.count, Progress("scenes drawn", args.count).over)


if __name__ == "__main__":
    main()
