"""The user's own choice among the classes of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .found import CITYSCAPES, SEGMENTATION, Found, first_names, layout_error
from .map_content import UNLABELLED


def with_classes(found: Found, classes: Sequence[str]) -> Found:
    """The data with a part of its classes; those of label maps may also be given other names.

    Objects of the other classes are left out. Pixels of the other classes are ignored. As many names as there are
    classes, other than theirs, rename the classes of label maps in order.

    Raises:
        UserError: D14: a name is unknown or stands twice, or nothing (of label maps, fewer than two) remains.
    """
    names = tuple(classes)
    is_masks = found.task == SEGMENTATION
    unknown = [name for name in names if name not in found.classes]
    if len(set(names)) < len(names) or len(names) < (2 if is_masks else 1):
        raise layout_error(
            "D14",
            f"The classes {first_names(names, 8) or '(none)'} cannot be used: each must stand once, and there must be "
            f"at least {2 if is_masks else 1}.",
            f"Choose among: {', '.join(found.classes)}.",
        )
    if unknown and is_masks and found.layout != CITYSCAPES and len(names) == len(found.classes):
        objects = {name: found.objects[old] for name, old in zip(names, found.classes, strict=True)}
        return replace(found, classes=names, objects=objects)
    if unknown:
        raise layout_error(
            "D14",
            f"{found.root} has no class {first_names(unknown)}.",
            f"Choose among: {', '.join(found.classes)}.",
        )
    kept = tuple(name for name in found.classes if name in names)  # labels follow the data's own order
    places = [found.classes.index(name) for name in kept]
    label = {old: new for new, old in enumerate(places)} | {UNLABELLED: UNLABELLED}
    values, colors = found.values, found.colors
    if values is not None:
        values = {value: label.get(old, UNLABELLED) for value, old in values.items()}
    if colors is not None:
        colors = tuple((*color[:3], label.get(color[3], UNLABELLED)) for color in colors)
    palette = tuple(found.palette[place] for place in places) if found.palette else None
    left_out = [name for name in found.classes if name not in kept]
    notes = (
        (*found.notes, f"classes left out as asked for: {', '.join(left_out)}") if left_out else found.notes
    )
    objects = {name: found.objects[name] for name in kept}
    return replace(
        found, classes=kept, palette=palette, objects=objects, values=values, colors=colors, notes=notes
    )
