"""What can be wrong with data: training and testing stop at the first problem, tools/prepare_data.py lists all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mst_pretrain.data.files import first_of
from mst_pretrain.runtime.errors import UserError

# By kind: the heading of a report, and the remedy of problems that have none of their own.
KINDS = {
    "missing split": (
        "parts of the data set are missing",
        "Unpack the archive named beside each, or correct the data root.",
    ),
    "wrong count": (
        "counts are not the official ones",
        "Unpack the archives again; if this is a set of your own, say so: --any-count.",
    ),
    "unusable file": (
        "files are truncated or cannot be decoded",
        "Copy or unpack them again, or remove them and their labels; mst finetune leaves them out with --skip-broken.",
    ),
    "unsuitable file": (
        "files are whole, but cannot be used as they are",
        "Do what is said of each, or remove them and their labels.",
    ),
    "absent image": (
        "images named by a JSON are not there",
        "Copy or unpack them again, or remove their entries from the JSON.",
    ),
    "image size": (
        "images have a different size from what the JSON says",
        "Use the images that were annotated, or correct the JSON.",
    ),
    "entries": ("entries of a JSON cannot be used", ""),
    "no object": (
        "files have no object to train on or to score",
        "Correct the boxes, the classes, or what is marked 'iscrowd' or 'ignore'.",
    ),
    "unused": (
        "files of which less than half is used",
        "Correct what is said, or the config's classes and filter_cfg. To go on all the same: --cfg-options "
        "+allow_unused=True",
    ),
    "box outside": (
        "boxes reach out of their image by more than a pixel",
        "Correct or remove these annotations.",
    ),
    "masks not used": (
        "masks cannot be used",
        "To train boxes alone nothing needs to be done: masks are not used.",
    ),
    "doubtful": ("entries of a JSON may be wrong", ""),
    "no label map": (
        "images have no label map",
        "Unpack the label maps again (PNG, the image's name), or remove these images; for Cityscapes, python "
        "tools/prepare_data.py cityscapes ROOT draws them from the polygons.",
    ),
    "polygons": ("polygons cannot be drawn", "Unpack gtFine_trainvaltest.zip again."),
    "label map mode": (
        "label maps do not have one channel of ids",
        "Save maps of class ids with one channel (Cityscapes: labelTrainIds), not the color maps.",
    ),
    "label map format": (
        "label maps are stored in a way that changes their ids",
        "Write the ids anew as PNG with 8 bits; from a JPEG they cannot be restored.",
    ),
    "label map size": (
        "label maps have a different size from their image",
        "Resize the map with nearest neighbor, or replace it.",
    ),
    "unknown id": (
        "label maps have ids beyond the classes",
        "Write pixels of no class as 255, or name every class in the config; for Cityscapes, delete the map, and "
        "python tools/prepare_data.py cityscapes ROOT draws it anew.",
    ),
    "one class": (
        "label maps have nothing to tell apart",
        "Write the id of each pixel's class into the maps. To go on all the same: --cfg-options +allow_unused=True",
    ),
    "two meanings of 255": (
        "255 is the object in one split and ignored in another",
        "Write the object's pixels as 1 in the maps of both, and 255 for pixels to ignore.",
    ),
    "two meanings of 0": (
        "0 is a class in one split and ignored in another",
        "Give the data sets of train, val and test the same reduce_zero_label.",
    ),
    "turned": (
        "images are turned by a tag",
        "If they were drawn on the pixels as stored, remove the tags: exiftool -Orientation= FOLDER",
    ),
    "not turned": (
        "images have a tag that turns them elsewhere",
        "If they were drawn on the upright pictures, write the images anew, upright and without the tag.",
    ),
    "shared images": (
        "images are in both splits",
        "A score on them says nothing of new images: give val images of its own.",
    ),
    "palettes": (
        "palettes of label maps differ",
        "If the colors are right, write all maps anew with one palette.",
    ),
    "65535": (
        "label maps of 16 bits hold 65535",
        "To be sure of it, write 255.",
    ),
    "dark": (
        "images are nearly black as they are loaded",
        "Scale their values to 0..65535, or save them with 8 bits.",
    ),
    "layout": ("parts cannot be used", ""),
}
# What may be right, or is put right by mmdet, which clips boxes: said, and nothing more
WARNINGS = (
    *("box outside", "masks not used", "doubtful"),
    *("turned", "not turned", "shared images", "palettes", "65535", "dark"),
)


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        kind: A key of :data:`KINDS`.
        path: The file or folder.
        what: What is wrong with it, with the entries concerned; no period at the end.
        own_remedy: What to do, if that is not what the kind says.
    """

    kind: str
    path: Path
    what: str
    own_remedy: str = ""

    @property
    def title(self) -> str:
        """What is said of the kind."""
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        """What to do: a sentence, or an empty string where ``what`` says it."""
        return self.own_remedy or KINDS[self.kind][1]

    def __str__(self) -> str:
        return f"{self.path}: {self.what}. {self.remedy}"


def stop_at_first(problems: Iterable[Problem]) -> None:
    """Refuse data with a problem that training cannot live with; problems behind it are not looked for.

    Warnings before it are printed.

    Raises:
        UserError: The first problem, with its remedy, and how many follow of the same kind.
    """
    for _, group in groupby(_serious(problems), lambda problem: problem.kind):
        first, *rest = group
        others = [problem.path for problem in rest if problem.path != first.path]
        more = f" (and {len(others)} more: {first_of(others)})" if others else ""
        raise UserError(f"{first.path}: {first.what}{more}. {first.remedy}")


def _serious(problems: Iterable[Problem]) -> Iterator[Problem]:
    for problem in problems:
        if problem.kind in WARNINGS:
            print(f"warning: {problem}", flush=True)
        else:
            yield problem
