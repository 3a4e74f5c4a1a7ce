"""Where images and label maps lie: Cityscapes' layout, and two folders with the same names."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from mst_pretrain.data.files import BLOCK, IMAGE_SUFFIXES, first_of, images_below, in_threads, list_images
from mst_pretrain.data.suffixes import describe_left_out
from mst_pretrain.runtime.errors import UserError

from .missing import need_folder

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
IMAGE_TAIL = "_leftImg8bit"
LABEL_TAIL = "_gtFine_labelTrainIds.png"

MAP_SUFFIXES = (".png", ".tif", ".tiff", ".webp")  # of label maps; a lossy one is refused where it is read

Pairs = tuple[list[Path], list[Path]]  # images, and the label map of each, which need not be there


def cityscapes_images(folder: str | Path) -> list[Path]:
    """All ``*_leftImg8bit.png|.jpg|.jpeg`` below ``folder``, sorted, of one suffix.

    Raises:
        UserError: The folder is missing, has no image, or has several suffixes.
    """
    folder = Path(folder)
    need_folder(folder, "the images of this split")
    tails = tuple(IMAGE_TAIL + suffix for suffix in (".png", ".jpg", ".jpeg"))
    paths = [folder / name for name in images_below(folder) if name.endswith(tails)]
    if not paths:
        raise UserError(
            f"{folder} holds no image CITY/NAME{IMAGE_TAIL}.png (or .jpg). Unpack leftImg8bit there."
        )
    suffixes = sorted({path.suffix for path in paths})
    if len(suffixes) > 1:
        raise UserError(f"{folder} mixes images of suffixes {' and '.join(suffixes)}. Keep one format.")
    return paths


def cityscapes_label_map(image: Path, images_root: Path, labels_root: Path) -> Path:
    """Where the ``labelTrainIds`` map of an image below ``images_root`` belongs below ``labels_root``."""
    name = image.stem.removesuffix(IMAGE_TAIL) + LABEL_TAIL
    return labels_root / image.parent.relative_to(images_root) / name


def cityscapes_pairs(images_root: Path, labels_root: Path) -> Pairs:
    """The images of a split, and where the ``labelTrainIds`` map of each belongs.

    Raises:
        UserError: As :func:`cityscapes_images`, or the folder of the maps is missing.
    """
    images = cityscapes_images(images_root)
    need_folder(labels_root, "the label maps of this split")
    return images, [cityscapes_label_map(path, images_root, labels_root) for path in images]


def folder_pairs(images_root: str | Path, maps_root: str | Path, names: Sequence[str] | None = None) -> Pairs:
    """Every image below one folder, and where its label map belongs: the same path below the other, ``.png``.

    ``.PNG``, ``.tif``, ``.tiff`` or ``.webp`` stands for it where there is no such file.

    Args:
        images_root: Folder of the images.
        maps_root: Folder of the label maps.
        names: Of the images that are used, relative to their folder; None: all.

    Raises:
        UserError: A folder or an image of ``names`` is missing, there are no images, or two would share a label map.
    """
    images_root, maps_root = Path(images_root), Path(maps_root)
    need_folder(images_root, "the images of this split")
    need_folder(maps_root, "the label maps of this split")
    if names is None:
        images = list_images(images_root)
    else:
        images = [images_root / name for name in sorted(names)]
        missing = [
            path
            for path, there in zip(images, in_threads(Path.is_file, images, block=BLOCK), strict=True)
            if not there
        ]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(images)} images of the list do not exist: {first_of(missing)}. Copy them back "
                "or make the split again in a new run folder."
            )
    maps = _maps_of([path.relative_to(images_root) for path in images], maps_root)
    owners = dict(zip(maps, images, strict=True))
    shared = [str(path) for path, label in zip(images, maps, strict=True) if owners[label] != path]
    if shared:
        raise UserError(
            f"{len(shared)} images in {images_root} differ from another one by their suffix only: {first_of(shared)}. "
            "Both would have one label map: rename or remove one."
        )
    return images, maps


def _maps_of(names: Sequence[Path], root: Path) -> list[Path]:
    """The label map of each image, by the images' names below their folder."""
    there = {Path(name) for name in images_below(root)}
    others: dict[Path, Path] = {}
    for suffix in reversed(MAP_SUFFIXES):  # the first of them counts where there are several
        others |= {path.with_suffix(".png"): path for path in there if path.suffix.lower() == suffix}
    wanted = [name.with_suffix(".png") for name in names]
    return [root / (name if name in there else others.get(name, name)) for name in wanted]


def folder_notes(images_root: str | Path, maps_root: str | Path, used: Sequence[Path]) -> list[str]:
    """What is said of files in two folders that are taken for others, or not used.

    Args:
        images_root: Folder of the images.
        maps_root: Folder of the label maps.
        used: The label maps of the images that are used.
    """
    left_out: Counter[str] = Counter()
    capital = sum(path.suffix == ".PNG" and path.is_relative_to(maps_root) for path in used)
    notes = [f"{capital} label maps with the suffix .PNG: taken for .png"] if capital else []
    unused = unused_maps(images_root, maps_root, used, left_out)
    notes += [unused] if unused else []
    list_images(images_root, left_out)
    others = describe_left_out(left_out)
    return notes + ([f"{left_out.total()} files left out: {others}"] if others else [])


def unused_maps(
    images_root: str | Path, maps_root: str | Path, used: Sequence[Path], left_out: Counter[str] | None = None
) -> str:
    """What is said of the label maps that no image uses: how many, why, and the first of them; or nothing.

    Args:
        images_root: Folder of the images.
        maps_root: Folder of the label maps.
        used: The label maps of the images that are used.
        left_out: Counts the files in the maps' folder that are not images.
    """
    known, reasons, left, siblings = set(used), Counter[str](), [], siblings_finder()
    for name in images_below(maps_root, left_out):
        path = Path(maps_root, name)
        if path not in known:
            left.append(path)
            image = Path(images_root, name)
            reasons[_why_unused(image, siblings(image))] += 1
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{len(left)} label maps are not used ({first_of(left)}): {why}" if left else ""


def siblings_finder() -> Callable[[Path], list[str]]:
    """A function that gives the files beside a path whose names begin as its own, and a dot; it lists a folder once."""

    @cache
    def by_stem(folder: Path) -> dict[str, list[str]]:
        stems: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
            for place, sign in enumerate(name):
                if sign == ".":
                    stems[name[:place]].append(name)
        return stems

    return lambda path: by_stem(path.parent).get(path.stem, [])


def _why_unused(image: Path, siblings: Sequence[str]) -> str:
    """Why a label map at the place of this image is not used, beside which these files lie."""
    if image.suffix != ".png":
        return f"with the suffix {image.suffix}, but label maps are .png, .tif, .tiff or .webp"
    suffixes = sorted({Path(name).suffix for name in siblings})
    if not suffixes:
        return "without an image of that name"
    if any(suffix.lower() in IMAGE_SUFFIXES for suffix in suffixes):
        return "whose image is left out by the config"
    return f"of images with the suffix {suffixes[0]}, which is not read"
