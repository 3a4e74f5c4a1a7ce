"""What the ids or colors of label maps stand for: by a list of classes, or by what is usual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .class_files import IGNORED, ClassList, Color, write_template
from .found import Colors, Palette, first_names, layout_error
from .map_content import UNLABELLED, MapContent

MANY = 100  # values or colors from which maps are pictures
SHOWN = 8
LIST_HINT = "name them in classes.txt beside the data, one a line in the order of the ids"


@dataclass(frozen=True)
class MaskMeaning:
    """How values become labels.

    Attributes:
        classes: Names by label.
        values: Label of each value of one channel, 255 ignored; None for colors.
        colors: Red, green, blue and label of each color, 255 ignored; None for values.
        palette: A color of each class, or None.
        notes: What was decided.
    """

    classes: tuple[str, ...]
    values: dict[int, int] | None
    colors: Colors | None
    palette: Palette | None
    notes: tuple[str, ...]


def id_meaning(
    folder: Path, root: Path, contents: Sequence[MapContent], listed: ClassList | None
) -> MaskMeaning:
    """One channel of ids.

    Raises:
        UserError: D09: an id is beyond the list; there are more than 100; or there is only one.
    """
    values = sorted({value for content in contents for value in content.ids})
    ids = [value for value in values if value != UNLABELLED]
    names = listed.names if listed else ()
    notes = [f"classes are named by {listed.path}"] if listed else []
    if values == [0, UNLABELLED] and (not listed or len(names) == 2):
        chosen = names or ("background", "object")
        notes.append(f"label maps hold 0 and 255 only: 0 is {chosen[0]}, 255 is {chosen[1]}")
        return MaskMeaning(
            chosen, {0: 0, UNLABELLED: 1}, None, listed.colors if listed else None, tuple(notes)
        )
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
        return MaskMeaning(
            names, {value: value for value in range(len(names))}, None, listed.colors, tuple(notes)
        )
    if len(ids) > MANY:
        raise layout_error(
            "D09",
            f"Label maps in {folder} hold {len(ids)} different values, as pictures do, not as maps of ids do.",
            "Give maps of ids 0, 1, 2, ... in one channel, or name the classes in classes.txt if there are this many.",
        )
    if len(ids) < 2:
        raise layout_error(
            "D09",
            f"Label maps in {folder} hold only {first_names(values, SHOWN)}: there is nothing to tell apart.",
            "Write 0 for the background and 1 (or 255) for the object; 255 beside 1 is ignored.",
        )
    if ids == [0, 1]:
        notes.append(f"0 is taken for the background and 1 for the object; {LIST_HINT}")
        chosen = ("background", "object")
    else:
        notes.append(f"the ids {first_names(ids, SHOWN)} have no names; {LIST_HINT}")
        chosen = tuple(f"class {value}" for value in ids)
    labels = {value: label for label, value in enumerate(ids)}
    known = {value: color for content in contents for value, color in content.palette.items()}
    palette = tuple(known[value] for value in ids) if all(value in known for value in ids) else None
    return MaskMeaning(chosen, labels, None, palette, tuple(notes))


def color_meaning(
    folder: Path, root: Path, contents: Sequence[MapContent], listed: ClassList | None
) -> MaskMeaning:
    """Three channels of colors; gray ones are ids written three times.

    Raises:
        UserError: D08: there is no list of colors (a template is written), or it lacks one; D09: too many colors.
    """
    counts: Counter[Color] = Counter()
    for content in contents:
        counts.update(content.colors)
    colors = [color for color, _ in counts.most_common()]
    if listed is None or listed.colors is None:
        if all(red == green == blue for red, green, blue in colors):
            gray = [MapContent(Counter({color[0]: count for color, count in counts.items()}))]
            meaning = id_meaning(folder, root, gray, listed)
            assert meaning.values is not None
            labels = {UNLABELLED: UNLABELLED} | meaning.values
            known = tuple((value, value, value, label) for value, label in sorted(labels.items()))
            return MaskMeaning(meaning.classes, None, known, meaning.palette, meaning.notes)
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
    known = tuple((*color, labels.get(color, UNLABELLED)) for color in listed.colors)
    notes = [f"classes are named by {listed.path}"]
    if len(kept) < len(known):
        notes.append("pixels of the color named 'ignore' are neither trained nor scored")
    names, palette = tuple(name for name, _ in kept), tuple(color for _, color in kept)
    return MaskMeaning(names, None, known, palette, tuple(notes))
