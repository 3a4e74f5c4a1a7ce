"""What the values and colors of label maps mean, and how many pixels each class has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .class_files import IGNORED, ClassList, Color, find_class_list, write_template
from .found import SEGMENTATION, Colors, Found, Palette, Part, first_names, layout_error

UNLABELLED = 255
DEEP = 65535  # 16 bits; read as 255
MANY = 100  # values or colors from which maps are pictures
SHOWN = 8
LIST_HINT = "name them in classes.txt beside the data, one a line in the order of the ids"


@dataclass(frozen=True)
class MapContent:
    """Pixels of one map.

    Attributes:
        values: Number of pixels of each value; of a map of colors, of each (red, green, blue).
        is_color: It is a map of colors.
        palette: Color of each value in it, of a palette's PNG.
        is_jpeg: It is stored with loss.
    """

    values: Counter[int] | Counter[Color]
    is_color: bool = False
    palette: dict[int, Color] | None = None
    is_jpeg: bool = False


@dataclass(frozen=True)
class MaskMeaning:
    """How values become labels.

    Attributes:
        classes: Names by label.
        labels: Label of each value or color, 255 ignored.
        palette: A color of each class, or None.
        notes: What was decided.
    """

    classes: tuple[str, ...]
    labels: dict[int, int] | dict[Color, int]
    palette: Palette | None
    notes: tuple[str, ...]


def read_map(path: Path) -> MapContent | None:
    """The pixels of a label map; None where it cannot be decoded, which :func:`check` names."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            is_jpeg = image.format in ("JPEG", "MPO")
            if image.mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
                pixels = np.asarray(image.convert("RGB")).astype(np.int64)
                codes, counts = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_counts=True)
                colors = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes]
                return MapContent(
                    Counter(dict(zip(colors, counts.tolist(), strict=True))), True, is_jpeg=is_jpeg
                )
            values, counts = np.unique(np.asarray(image), return_counts=True)
            palette = image.getpalette() if image.mode == "P" else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    ids = [UNLABELLED if value == DEEP else int(value) for value in values]
    found: Counter[int] = Counter()
    for value, count in zip(ids, counts.tolist(), strict=True):
        found[value] += count
    known = [value for value in ids if palette and 3 * value + 2 < len(palette)]
    own = {
        value: (palette[3 * value], palette[3 * value + 1], palette[3 * value + 2])
        for value in known
        if palette
    }
    return MapContent(found, False, own or None, is_jpeg)


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
            f"Label maps in {folder} are JPEG files, which change ids at every border.",
            "Export them again as PNG; from a JPEG the ids cannot be restored.",
        )
    kinds = {content.is_color for content in contents}
    if len(kinds) > 1:
        raise layout_error(
            "D09",
            f"Some label maps in {folder} have three channels of colors and others one channel of ids.",
            "Export all of them again in one way.",
        )
    listed = find_class_list((root, folder, folder.parent))
    meaning = (color_meaning if kinds == {True} else id_meaning)(folder, root, contents, listed)
    pixels = {name: label_counts(some, meaning) for name, some in read.items()}
    return _found(root, layout, parts, meaning, pixels, notes, kinds == {True})


def _found(
    root: Path,
    layout: str,
    parts: dict[str, Part],
    meaning: MaskMeaning,
    pixels: dict[str, Counter[int]],
    notes: Sequence[str],
    is_color: bool,
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
    colors: Colors | None = None
    if is_color:
        colors = tuple((*color, label) for color, label in meaning.labels.items())  # type: ignore[misc]
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
        values=None if is_color else meaning.labels,  # type: ignore[arg-type]
        colors=colors,
        notes=(*notes, *meaning.notes),
        warnings=tuple(warnings),
    )


def label_counts(contents: Iterable[MapContent], meaning: MaskMeaning) -> Counter[int]:
    """Pixels of each label, 255 included."""
    counts: Counter[int] = Counter()
    for content in contents:
        for value, count in content.values.items():
            counts[meaning.labels.get(value, UNLABELLED)] += count  # type: ignore[call-overload]
    return counts


def id_meaning(
    folder: Path, root: Path, contents: Sequence[MapContent], listed: ClassList | None
) -> MaskMeaning:
    """One channel of ids.

    Raises:
        UserError: D09: an id is beyond the list; there are more than 100; or there is only one.
    """
    values = sorted({value for content in contents for value in content.values})
    ids = [value for value in values if value != UNLABELLED]
    names = listed.names if listed else ()
    notes = [f"classes are named by {listed.path}"] if listed else []
    if values == [0, UNLABELLED] and (not listed or len(names) == 2):
        chosen = names or ("background", "object")
        notes.append(f"label maps hold 0 and 255 only: 0 is {chosen[0]}, 255 is {chosen[1]}")
        return MaskMeaning(chosen, {0: 0, UNLABELLED: 1}, listed.colors if listed else None, tuple(notes))
    if UNLABELLED in values:
        notes.append("255 is ignored: these pixels are neither trained nor scored")
    if listed:
        beyond = [value for value in ids if value >= len(names)]
        if beyond:
            raise layout_error(
                "D09",
                f"Label maps in {folder} hold the ids {first_names(beyond)}, but {listed.path} names only {len(names)} "
                f"classes (0 to {len(names) - 1}).",
                "Add the missing names, or write 255 for pixels that do not count.",
            )
        return MaskMeaning(names, {value: value for value in range(len(names))}, listed.colors, tuple(notes))
    if len(ids) > MANY:
        raise layout_error(
            "D09",
            f"Label maps in {folder} hold {len(ids)} different values, as pictures do, not as maps of ids do.",
            "Give maps of ids 0, 1, 2, ... in one channel, or name the classes in classes.txt if there are this many.",
        )
    if len(ids) < 2:
        raise layout_error(
            "D09",
            f"Label maps in {folder} hold {_listing(values)} and nothing else: there is nothing to tell apart.",
            "Write 0 for the background and 1 (or 255) for the object; 255 beside 1 is ignored.",
        )
    if ids == [0, 1]:
        notes.append(f"0 is taken for the background and 1 for the object; {LIST_HINT}")
        chosen = ("background", "object")
    else:
        notes.append(f"the ids {_listing(ids)} have no names; {LIST_HINT}")
        chosen = tuple(f"class {value}" for value in ids)
    labels = {value: label for label, value in enumerate(ids)}
    palettes = [content.palette for content in contents]
    known = {value: color for palette in palettes if palette for value, color in palette.items()}
    palette = tuple(known[value] for value in ids) if all(value in known for value in ids) else None
    return MaskMeaning(chosen, labels, palette, tuple(notes))


def color_meaning(
    folder: Path, root: Path, contents: Sequence[MapContent], listed: ClassList | None
) -> MaskMeaning:
    """Three channels of colors; gray ones are ids written three times.

    Raises:
        UserError: D08: there is no list of colors (a template is written), or it lacks one; D09: too many colors.
    """
    counts: Counter[Color] = Counter()
    for content in contents:
        counts.update(content.values)  # type: ignore[arg-type]
    colors = [color for color, _ in counts.most_common()]
    if listed is None or listed.colors is None:
        if all(red == green == blue for red, green, blue in colors):
            gray = [MapContent(Counter({color[0]: count for color, count in counts.items()}))]
            meaning = id_meaning(folder, root, gray, listed)
            labels: dict[Color, int] = {
                (value, value, value): label for value, label in meaning.labels.items()
            }  # type: ignore[misc]
            if UNLABELLED not in meaning.labels:
                labels[UNLABELLED, UNLABELLED, UNLABELLED] = UNLABELLED
            return MaskMeaning(meaning.classes, labels, meaning.palette, meaning.notes)
        if len(colors) > MANY:
            raise layout_error(
                "D09",
                f"Label maps in {folder} hold {len(colors):,} different colors: they look like pictures, or were "
                "resized with smoothing.",
                "Export them again as PNG, without smoothing, in one color for each class.",
            )
        path = write_template(root, sorted(counts))
        shown = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors[:SHOWN])
        more = ", ..." if len(colors) > SHOWN else ""
        raise layout_error(
            "D08",
            f"Label maps in {folder} are colored, and nothing says which color is which class. Found {len(colors)}: "
            f"{shown}{more}.",
            f"Fill in {path} and save it as {root / 'classes.txt'}.",
        )
    return _listed_colors(folder, colors, listed)


def _listed_colors(folder: Path, colors: Sequence[Color], listed: ClassList) -> MaskMeaning:
    assert listed.colors is not None
    missing = [color for color in colors if color not in listed.colors]
    if missing:
        shown = ", ".join("#{:02x}{:02x}{:02x} ({} {} {})".format(*color, *color) for color in missing[:3])
        raise layout_error(
            "D08",
            f"Label maps in {folder} have {len(missing)} colors that {listed.path} does not name: {shown}.",
            "Add them to the list; name a color 'ignore' where its pixels do not count.",
        )
    pairs = zip(listed.names, listed.colors, strict=True)
    kept = [(name, color) for name, color in pairs if name.lower() not in IGNORED]
    labels = {color: label for label, (_, color) in enumerate(kept)}
    ignored = [color for color in listed.colors if color not in labels]
    labels |= dict.fromkeys(ignored, UNLABELLED)
    notes = [f"classes are named by {listed.path}"]
    notes += ["pixels of the color named 'ignore' are neither trained nor scored"] if ignored else []
    return MaskMeaning(
        tuple(name for name, _ in kept), labels, tuple(color for _, color in kept), tuple(notes)
    )


def _listing(values: Sequence[int]) -> str:
    return first_names(values, SHOWN)
