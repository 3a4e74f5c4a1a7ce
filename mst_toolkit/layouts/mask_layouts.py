"""Images and label maps in folders: with a split, without one, VOC's, and Cityscapes'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .coco_layouts import SPLITS
from .found import CITYSCAPES, SEGMENTATION, Found, Part, first_names, layout_error
from .mask_reading import build

IMAGES = ("images", "imgs", "image", "img", "JPEGImages")
MAPS = ("masks", "labels", "annotations", "mask", "SegmentationClass")
VOC_LISTS = "ImageSets/Segmentation"

Folders = dict[str, tuple[Path, Path]]  # part: folder of images and folder of label maps
Layout = tuple[str, str, Callable[[], Found]]  # name, evidence, what reads it


def candidates(root: Path) -> Iterator[Layout]:
    """The layouts of a folder that fit."""
    if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
        yield CITYSCAPES, "leftImg8bit, gtFine", partial(cityscapes, root)
    for images in _present(root, IMAGES):
        for maps in _present(root, MAPS):
            folders = _parts(images, maps)
            if folders is None:
                continue
            voc = maps.name == "SegmentationClass"
            name = "VOC masks" if voc else "images and masks"
            evidence = f"{images.name} and {maps.name}"
            yield name, evidence, partial(_build, root, name, folders, root / VOC_LISTS if voc else None)
    inner: Folders = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in SPLITS):
        for images in _present(folder, IMAGES):
            for maps in _present(folder, MAPS):
                if _holds_picture(maps):
                    inner[SPLITS[folder.name.lower()]] = (images, maps)
    if "train" in inner:
        evidence = ", ".join(f"{images.parent.name}/{images.name}" for images, _ in inner.values())
        yield "images and masks", evidence, partial(_build, root, "images and masks", inner, None)


def _present(root: Path, names: tuple[str, ...]) -> list[Path]:
    return [root / name for name in names if (root / name).is_dir()]


def _parts(images: Path, maps: Path) -> Folders | None:
    """The parts of two folders; ``train`` alone where there is no split; None where there are no label maps."""
    splits: Folders = {}
    of_maps = {SPLITS[path.name.lower()]: path for path in _split_folders(maps)}
    for folder in _split_folders(images):
        name = SPLITS[folder.name.lower()]
        if name in of_maps and _holds_picture(of_maps[name]):
            splits[name] = (folder, of_maps[name])
    if "train" in splits:
        return splits
    if splits or _split_folders(images) or not _holds_picture(maps):
        return None
    return {"train": (images, maps)}


def _split_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLITS)


def _holds_picture(folder: Path) -> bool:
    from mst_pretrain.data.files import holds_image

    return holds_image(folder)


def _build(root: Path, layout: str, folders: Folders, lists: Path | None) -> Found:
    """Pair images and maps, and read the maps.

    Raises:
        UserError: D10: no image has a label map; and what :func:`build` refuses.
    """
    notes: list[str] = []
    parts = {name: _part(root, name, images, maps, notes) for name, (images, maps) in folders.items()}
    if lists is not None and lists.is_dir():
        parts = _listed(parts["train"], lists, notes)
    return build(root, layout, parts, notes)


def _part(root: Path, name: str, images: Path, maps: Path, notes: list[str]) -> Part:
    """The images that have a label map."""
    from mst_transfer.data.layouts import folder_pairs

    pairs = folder_pairs(images, maps)
    with_map = [image for image, label in zip(*pairs, strict=True) if label.is_file()]
    if not with_map:
        image, label = pairs[0][0], pairs[1][0]
        others = (
            sorted(path.name for path in label.parent.glob("*") if path.is_file())
            if label.parent.is_dir()
            else []
        )
        found = f"{maps} holds {first_names(others)}" if others else f"{maps} has no file there"
        raise layout_error(
            "D10",
            f"No image in {images} has a label map of its name: {image.name} needs {label.name}; {found}.",
            "Give the maps the names of their images, as PNG files (a JPEG changes ids at every border).",
        )
    unlabelled = len(pairs[0]) - len(with_map)
    if not unlabelled:
        return Part(name, images, maps, len(with_map))
    notes.append(f"{unlabelled} of {len(pairs[0])} {name} images have no label map: left out")
    return Part(name, images, maps, len(with_map), tuple(str(path.relative_to(images)) for path in with_map))


def _listed(whole: Part, lists: Path, notes: list[str]) -> dict[str, Part]:
    """VOC's lists name the images of each part by their stems.

    Raises:
        UserError: D10: a list names no image with a label map.
    """
    from mst_pretrain.data.files import images_below

    names = whole.names if whole.names is not None else tuple(images_below(whole.images))
    by_stem = {str(Path(name).with_suffix("")): name for name in names}
    parts: dict[str, Part] = {}
    for path in sorted(lists.glob("*.txt")):
        split = SPLITS.get(path.stem.lower())
        if split is None:
            continue
        stems = [text.split()[0] for text in path.read_text(encoding="utf-8").splitlines() if text.strip()]
        own = tuple(by_stem[stem] for stem in stems if stem in by_stem)
        if not own:
            raise layout_error(
                "D10",
                f"{path} names {len(stems)} images, and none of them has a label map in {whole.annotations}.",
                "Unpack all of the data set, or remove ImageSets: the images are split by us then.",
            )
        if len(own) < len(stems):
            notes.append(
                f"{len(stems) - len(own)} of {len(stems)} images of {path.name} have no label map: left out"
            )
        parts[split] = Part(split, whole.images, whole.annotations, len(own), own)
    return parts if "train" in parts else {"train": whole}


def cityscapes(root: Path) -> Found:
    """Cityscapes' folders with ``labelTrainIds``; the classes are those with a pixel in the training maps.

    Raises:
        UserError: Images or label maps are missing, or no pixel is labelled; D10: there is no validation part.
    """
    from mst_pretrain.runtime.errors import UserError
    from mst_transfer.data.layouts import CITYSCAPES_CLASSES, cityscapes_pairs
    from mst_transfer.data.pair_rules import LabelRule, cityscapes_present_classes, label_pixels
    from mst_transfer.data.reading import Reader

    classes, parts = cityscapes_present_classes(root, "train"), {}
    for split in ("train", "val", "test"):
        images, maps = root / "leftImg8bit" / split, root / "gtFine" / split
        if not images.is_dir() or not maps.is_dir():
            continue
        try:
            if split == "test":
                cityscapes_present_classes(root, split)
        except UserError:  # the official test maps hold nothing but 255
            continue
        parts[split] = Part(split, images, maps, len(cityscapes_pairs(images, maps)[0]))
    if "val" not in parts:
        raise layout_error(
            "D10",
            f"{root} is in Cityscapes' layout, but leftImg8bit/val or gtFine/val is missing.",
            "Unpack both archives there; Cityscapes is not split by us.",
        )
    reader = Reader()
    train_maps = cityscapes_pairs(parts["train"].images, root / "gtFine/train")[1]
    for _ in reader.label_maps("train label maps", train_maps):
        pass
    pixels = label_pixels(train_maps, LabelRule(len(CITYSCAPES_CLASSES)), reader)
    objects = {name: pixels[CITYSCAPES_CLASSES.index(name)] for name in classes}
    absent = [name for name in CITYSCAPES_CLASSES if name not in classes]
    notes = (f"classes of Cityscapes without a pixel are left out: {', '.join(absent)}",) if absent else ()
    return Found(
        SEGMENTATION,
        CITYSCAPES,
        root,
        parts["train"],
        parts.get("val"),
        parts.get("test"),
        classes,
        objects=objects,
        notes=notes,
    )
