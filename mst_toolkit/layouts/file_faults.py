"""Files of a data set that cannot be used, each with what to do, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .found import CITYSCAPES, DETECTION, PHOTOS, Found, Part

if TYPE_CHECKING:
    from mst_transfer.data.problems import Problem


@dataclass(frozen=True)
class FileFault:
    """One file, and what is wrong with it.

    Attributes:
        path: The file.
        what: What is wrong, without a period.
        remedy: What to do.
        warning: The data can be used all the same.
    """

    path: Path
    what: str
    remedy: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}. {self.remedy}".rstrip()


def check(found: Found) -> list[FileFault]:
    """Look at every image and its labels: what is missing, truncated, not decodable, or does not fit together.

    Of images the first and last bytes and the header are read, of label maps the contents of at most 2,000.

    Returns:
        The faults, in the order of the parts; empty where there are none.
    """
    if found.task == PHOTOS:
        return list(_photos(found.train))
    from mst_transfer.data.coco_file import parsing_once
    from mst_transfer.data.problems import WARNINGS

    with parsing_once():
        problems = [problem for part in found.parts for problem in _problems(found, part)]
        problems += _shared(found)
    return [
        FileFault(problem.path, problem.what, _remedy(problem), problem.kind in WARNINGS)
        for problem in problems
    ]


def _remedy(problem: Problem) -> str:
    return "Copy it again, or add --skip-broken." if problem.kind == "unusable file" else problem.remedy


def _photos(part: Part) -> Iterator[FileFault]:
    from mst_pretrain.data.files import BLOCK, find_fault, in_threads, is_damage
    from mst_pretrain.data.sources import FileSource, open_source
    from mst_pretrain.runtime.errors import UserError

    source = open_source(str(part.images))
    if not isinstance(source, FileSource):
        try:
            source.check()
        except UserError as error:
            yield FileFault(part.images, str(error).rstrip("."), "")
        return
    for path, fault in zip(source.paths, in_threads(find_fault, source.paths, block=BLOCK), strict=True):
        if fault:
            remedy = "Copy it again" if is_damage(fault) else "Convert it"
            yield FileFault(Path(path), fault, f"{remedy}, or add --skip-broken.")


def _problems(found: Found, part: Part) -> Iterable[Problem]:
    from mst_transfer.data.reading import Reader

    assert part.annotations is not None
    reader = Reader()
    if found.task == DETECTION:
        from mst_transfer.data.coco_file import read_with_notes
        from mst_transfer.data.coco_repair import IMAGES
        from mst_transfer.data.coco_rules import coco_problems
        from mst_transfer.data.image_lists import of_images

        content, _ = read_with_notes(part.annotations, IMAGES)
        content = of_images(content, part.names, part.annotations)
        masks = found.masks == "all"
        return coco_problems(part.annotations, content, part.images, reader, found.classes, masks)
    from mst_transfer.data.layouts import CITYSCAPES_CLASSES, cityscapes_pairs, folder_pairs
    from mst_transfer.data.pair_rules import LabelRule, exchanged_values, pair_problems

    if found.layout == CITYSCAPES:
        pairs, rule = cityscapes_pairs(part.images, part.annotations), LabelRule(len(CITYSCAPES_CLASSES))
    else:
        pairs = folder_pairs(part.images, part.annotations, part.names)
        exchanged = exchanged_values(found.values or {}, len(found.classes)) if not found.colors else {}
        rule = LabelRule(len(found.classes), tuple(exchanged.items()), colors=found.colors or ())
    return pair_problems(pairs, rule, reader, part.name)


def _shared(found: Found) -> list[Problem]:
    """Images of val that are in train too, where the split is not ours."""
    if found.val is None or found.val.names is not None:
        return []
    from mst_transfer.data.image_rules import shared_images

    return list(shared_images(_images(found.train), _images(found.val)))


def _images(part: Part) -> list[Path]:
    from mst_pretrain.data.files import list_images

    return [part.images / name for name in part.names] if part.names is not None else list_images(part.images)
