"""What was recognised in a folder of data, and the line that says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mst_pretrain.runtime.errors import UserError

PHOTOS, DETECTION, SEGMENTATION = "photos", "detection", "segmentation"
TASKS = (PHOTOS, DETECTION, SEGMENTATION)
CITYSCAPES = "Cityscapes"
SHOWN = 8  # classes of the printed line

Palette = tuple[tuple[int, int, int], ...]
Colors = tuple[tuple[int, int, int, int], ...]  # red, green, blue, label


def layout_error(code: str, what: str, remedy: str) -> UserError:
    """An error with a code that docs/data_layouts.md explains: what is wrong and where, and how to go on."""
    from mst_pretrain.runtime.errors import UserError  # here, since its package imports torch

    return UserError(f"{what}\n{remedy} [{code}]")


def first_names(names: Sequence[object], count: int = 3) -> str:
    """The first few of a list for a message."""
    from mst_pretrain.runtime.terminal import first_shown

    return first_shown(names, count)


@dataclass(frozen=True)
class Part:
    """The training, validation or test images.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        images: Folder of the images. Of photos, what was given: a folder, list, shards, or the name of a data set.
        annotations: A COCO JSON, or the folder of the label maps; None for photos.
        count: Number of images that are used.
        names: Names of the images that are used, relative to ``images``; None: all.
        list: The file that :func:`write_lists` wrote the names to.
    """

    name: str
    images: Path
    annotations: Path | None
    count: int
    names: tuple[str, ...] | None = None
    list: Path | None = None


@dataclass(frozen=True)
class Found:
    """A recognised data set.

    Attributes:
        task: ``photos``, ``detection`` or ``segmentation``.
        layout: Its name, for example ``Roboflow export``.
        root: What was given, or the folder that holds the training images.
        train: Its training images; all images where there is no split.
        val: Its validation images; None: to be made by :func:`mst_toolkit.layouts.split`.
        test: Its test images, if there are any with labels.
        classes: Names by label; () for photos.
        palette: A color for each class, red, green and blue, where the data have them.
        objects: Of each class, the objects (no crowds) or the labelled pixels of the training images.
        masks: Whether ``all``, ``some`` or ``none`` of the objects have polygons that are used. Detection only.
        values: Of label maps, the label of each value; 255 is ignored. None where ``colors`` say it, or for Cityscapes.
        colors: Of maps of colors: red, green, blue and label.
        notes: What was decided or is put right in memory, for the user to read.
        warnings: What may be wrong.
    """

    task: str
    layout: str
    root: Path
    train: Part
    val: Part | None = None
    test: Part | None = None
    classes: tuple[str, ...] = ()
    palette: Palette | None = None
    objects: Mapping[str, int] = field(default_factory=dict)
    masks: str = "none"
    values: Mapping[int, int] | None = None
    colors: Colors | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that there are."""
        return tuple(part for part in (self.train, self.val, self.test) if part is not None)

    def part(self, name: str) -> Part:
        """One of them by its name.

        Raises:
            UserError: There is no such part.
        """
        for part in self.parts:
            if part.name == name:
                return part
        there = ", ".join(part.name for part in self.parts)
        raise layout_error(
            "D17",
            f"{self.root} has no {name} images; it has {there}.",
            "Split it first, or choose one of these.",
        )


def line(found: Found) -> str:
    """The printed line, e.g. ``parts: Roboflow export, 300 train and 60 validation images, 1,412 objects: ...``.

    The objects, or the shares of labelled pixels, are those of the training images.
    """
    name = found.root.name or str(found.root)
    if found.task == PHOTOS:
        return f"{name}: {found.layout}, {found.train.count:,} images"
    head = f"{name}: {found.layout}, {_images(found)}"
    total = sum(found.objects.values())
    ordered = sorted(found.objects.items(), key=lambda item: (-item[1], found.classes.index(item[0])))
    if found.task == DETECTION:
        shown = [f"{label} {count:,}" for label, count in ordered[:SHOWN]]
        what = f"{total:,} objects"
    else:
        shown = [f"{label} {100 * count / max(1, total):.1f} %" for label, count in ordered[:SHOWN]]
        what = f"{len(found.classes)} classes by pixels"
    more = f" and {len(ordered) - SHOWN} more classes" if len(ordered) > SHOWN else ""
    from mst_pretrain.runtime.terminal import shown_message

    return shown_message(f"{head}, {what}: {', '.join(shown)}{more}")


def _images(found: Found) -> str:
    words = {"train": "train", "val": "validation", "test": "test"}
    if found.val is None:
        test = f" and {found.test.count:,} test images" if found.test else ""
        return f"{found.train.count:,} images without a split{test}"
    counts = [f"{part.count:,} {words[part.name]}" for part in found.parts]
    return f"{', '.join(counts[:-1])} and {counts[-1]} images"
