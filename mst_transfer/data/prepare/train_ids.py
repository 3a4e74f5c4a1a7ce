"""Cityscapes' polygons to maps of train ids: cityscapesscripts' own drawing, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import name2label
from cityscapesscripts.preparation.json2labelImg import createLabelImage

from mst_pretrain.data.files import in_threads
from mst_pretrain.runtime.atomic import replacing
from mst_pretrain.runtime.progress import Progress

from ..layouts import LABEL_TAIL
from ..problems import Problem
from ..reading import Unusable

POLYGONS_TAIL = "_gtFine_polygons.json"


def polygons_of(label_map: Path) -> Path:
    """Where the polygons of a ``labelTrainIds`` map lie: beside it."""
    return label_map.with_name(label_map.name.removesuffix(LABEL_TAIL) + POLYGONS_TAIL)


def convert_all(jobs: Sequence[tuple[Path, Path]], workers: int | None) -> Iterator[Problem]:
    """Write the label map of each (polygons, label map) in threads, with progress.

    Yields:
        The polygons that could not be drawn.

    Raises:
        UserError: A map cannot be written.
    """

    def attempt(job: tuple[Path, Path]) -> str:
        try:
            convert(*job)
        except Unusable as error:
            return str(error)
        return ""

    progress = Progress("converting polygons to labelTrainIds", len(jobs))
    with closing(in_threads(attempt, jobs, workers)) as attempts:
        for (polygons, _), why in progress.over(zip(jobs, attempts, strict=True)):
            if why:
                yield Problem("polygons", polygons, why)


def convert(polygons: Path, label_map: Path) -> None:
    """Draw one ``labelTrainIds`` map as ``csCreateTrainIdLabelImgs`` does.

    Args:
        polygons: ``*_gtFine_polygons.json``.
        label_map: PNG to be written, at every moment absent, the old file or the whole new one.

    Raises:
        Unusable: The polygons cannot be read or have a label that Cityscapes does not know.
        UserError: The map cannot be written.
    """
    annotation = Annotation()
    try:
        annotation.fromJsonText(polygons.read_text(encoding="utf-8"))
        unknown = {
            item.label for item in annotation.objects if not item.deleted and not _is_known(item.label)
        }
        if unknown:  # cityscapesscripts would end the process
            raise Unusable(f"labels {sorted(unknown)} are not Cityscapes' labels")
        image = createLabelImage(annotation, "trainIds")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Unusable(f"not Cityscapes' polygons: {error!r}") from error
    with replacing(label_map, durable=False) as part:
        image.save(part, "png")


def _is_known(label: str) -> bool:
    """As cityscapesscripts: ``cargroup`` is drawn as ``car``."""
    return label in name2label or label.removesuffix("group") in name2label
