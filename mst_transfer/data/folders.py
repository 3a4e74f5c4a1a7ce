"""Images in one folder, label maps of class ids in another."""

from __future__ import annotations

from pathlib import Path

from mst_pretrain.data.files import first_of, list_images
from mst_pretrain.runtime.errors import UserError

from .label_maps import check_pairs, parallel
from .layouts import need_folder


def folder_pairs(images_root: str | Path, maps_root: str | Path) -> tuple[list[Path], list[Path]]:
    """Every image below one folder, and where its label map belongs: the same path below the other, ``.png``.

    Raises:
        UserError: Missing folder, no image, or two images that would share a label map.
    """
    images_root, maps_root = Path(images_root), Path(maps_root)
    need_folder(images_root, "the images of this split")
    need_folder(maps_root, "the label maps of this split")
    images = list_images(images_root)
    maps = [maps_root / path.relative_to(images_root).with_suffix(".png") for path in images]
    owners = dict(zip(maps, images, strict=True))
    shared = [str(path) for path, label in zip(images, maps, strict=True) if owners[label] != path]
    if shared:
        raise UserError(
            f"{len(shared)} images in {images_root} differ from another one by their suffix only: {first_of(shared)}. "
            "Both would have one label map: rename or remove one."
        )
    return images, maps


def check_folder_pair(images_root: str | Path, maps_root: str | Path, classes: int) -> int:
    """Check images and label maps in two folders: maps 8-bit PNG of the image's size, ids 0..classes-1 or 255.

    Returns:
        The number of images.

    Raises:
        UserError: As :func:`folder_pairs`; images without label map; or :func:`check_pairs` finds a fault.
    """
    images, maps = folder_pairs(images_root, maps_root)
    absent = [str(path) for path, there in zip(maps, parallel(Path.is_file, maps), strict=True) if not there]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(images)} images in {images_root} have no label map: {first_of(absent)}. "
            "Put the maps there (PNG, the image's name), or remove these images."
        )
    check_pairs(images, maps, classes, "Write pixels of no class as 255, or name every class in the config.")
    return len(images)
