"""Segmentation read from pairs of images and label maps: their classes, and the pixels of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .class_files import find_class_list
from .found import SEGMENTATION, Found, Part, first_names, layout_error
from .map_content import MapContent, pixels_by_label, read_map
from .mask_meaning import SHOWN, MaskMeaning, color_meaning, id_meaning


def maps_of(part: Part) -> list[tuple[str, Path]]:
    """Name and label map of each image of a part, sorted by name."""
    from mst_transfer.data.layouts import folder_pairs

    assert part.annotations is not None
    images, maps = folder_pairs(part.images, part.annotations, part.names)
    return [(str(image.relative_to(part.images)), label) for image, label in zip(images, maps, strict=True)]


def build(root: Path, layout: str, parts: dict[str, Part], notes: Sequence[str]) -> Found:
    """Read the label maps (all, or 2,000 of each part) and say what they mean.

    Raises:
        UserError: D08: colors without a list; D09: the values cannot be class ids; D15: the list cannot be used.
    """
    from mst_pretrain.data.files import in_threads
    from mst_transfer.data.reading import sample

    read: dict[str, list[MapContent]] = {}
    for name, part in parts.items():
        paths = sample([label for _, label in maps_of(part)])
        read[name] = [content for content in in_threads(read_map, paths) if content is not None]
    contents = [content for some in read.values() for content in some]
    folder = parts["train"].annotations
    assert folder is not None
    if not contents:
        raise layout_error(
            "D09", f"No label map in {folder} can be decoded.", "Copy or export them again, as PNG files."
        )
    if any(content.is_jpeg for content in contents):
        raise layout_error(
            "D09",
            f"Label maps in {folder} are stored with loss (JPEG, lossy WebP, or a TIFF with one of them), "
            "which changes ids at every border.",
            "Export them again as PNG; from these files the ids cannot be restored.",
        )
    kinds = {bool(content.colors) for content in contents}
    if len(kinds) > 1:
        raise layout_error(
            "D09",
            f"Some label maps in {folder} have three channels of colors and others one channel of ids.",
            "Export all of them again in one way.",
        )
    listed = find_class_list((root, folder, folder.parent))
    meaning = (color_meaning if kinds == {True} else id_meaning)(folder, root, contents, listed)
    pixels = {name: Counter[int]() for name in read}
    for name, some in read.items():
        for content in some:
            pixels[name].update(pixels_by_label(content, meaning.values, meaning.colors))
    return _found(root, layout, parts, meaning, pixels, notes)


def _found(
    root: Path,
    layout: str,
    parts: dict[str, Part],
    meaning: MaskMeaning,
    pixels: dict[str, Counter[int]],
    notes: Sequence[str],
) -> Found:
    classes = meaning.classes
    warnings = []
    for name, what in (("train", "nothing is learned of them"), ("val", "they are not scored")):
        absent = [label for place, label in enumerate(classes) if name in pixels and not pixels[name][place]]
        if absent:
            words = {"train": "training", "val": "validation"}[name]
            warnings.append(
                f"{len(absent)} of {len(classes)} classes have no pixel in the {words} maps, so that {what}: "
                + first_names(absent, SHOWN)
            )
    return Found(
        SEGMENTATION,
        layout,
        root,
        parts["train"],
        parts.get("val"),
        parts.get("test"),
        classes,
        meaning.palette,
        {name: pixels["train"][label] for label, name in enumerate(classes)},
        values=meaning.values,
        colors=meaning.colors,
        notes=(*notes, *meaning.notes),
        warnings=tuple(warnings),
    )
