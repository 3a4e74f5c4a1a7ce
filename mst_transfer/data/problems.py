"""What can be wrong with data: training and testing stop at the first problem, tools/prepare_data.py lists all."""

from __future__ import annotations

from collections.abc import Iterable
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
        "Copy or unpack them again, or remove them and their labels.",
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
        "Write each object's 'area' in pixels, or correct the classes.",
    ),
    "no area": (
        "files have annotations of area 0 whose box is larger; training leaves them out",
        "Write each object's 'area' in pixels: its mask's, or its box's.",
    ),
    "box outside": (
        "boxes reach out of their image by more than a pixel",
        "Correct or remove these annotations.",
    ),
    "no label map": (
        "images have no label map",
        "Unpack the label maps again (PNG, the image's name), or remove these images; for Cityscapes, python "
        "tools/prepare_data.py cityscapes ROOT draws them from the polygons.",
    ),
    "polygons": ("polygons cannot be drawn", "Unpack gtFine_trainvaltest.zip again."),
    "label map mode": (
        "label maps do not have one channel of 8-bit ids",
        "Use maps of class ids (Cityscapes: labelTrainIds), not the color maps.",
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
    "layout": ("parts cannot be used", ""),
}
TRAINABLE = (
    "no area",
    "box outside",
)  # mmdet leaves such objects out, or clips them: listed, but training goes on


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
    def remedy(self) -> str:
        """What to do: a sentence, or an empty string where ``what`` says it."""
        return self.own_remedy or KINDS[self.kind][1]


def stop_at_first(problems: Iterable[Problem]) -> None:
    """Refuse data with a problem that training cannot live with; problems behind it are not looked for.

    Raises:
        UserError: The first problem, with its remedy, and how many follow of the same kind.
    """
    serious = (problem for problem in problems if problem.kind not in TRAINABLE)
    for _, group in groupby(serious, lambda problem: problem.kind):
        first, *rest = group
        others = [problem.path for problem in rest if problem.path != first.path]
        more = f" (and {len(others)} more: {first_of(others)})" if others else ""
        raise UserError(f"{first.path}: {first.what}{more}. {first.remedy}")
