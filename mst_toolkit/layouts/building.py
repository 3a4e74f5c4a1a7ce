"""What a recognised data set is in a config: data sets and evaluators of MMEngine, and the lists of a split."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from .found import CITYSCAPES, DETECTION, PHOTOS, Found, Part

LISTS = "split"  # folder of the lists in a run's folder


def write_lists(found: Found, folder: str | Path) -> Found:
    """Write the names of the images of every part that is not a whole folder, one a line, to ``split/PART.txt``.

    Args:
        found: The data; nothing of them is copied.
        folder: Of the run.

    Returns:
        The same with these files, which :func:`dataset` and :func:`evaluator` then name instead of every image.
    """
    from mst_pretrain.runtime.atomic import write_text

    parts: dict[str, Part] = {}
    for part in found.parts:
        if part.names is not None:
            path = Path(folder, LISTS, f"{part.name}.txt").absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text("\n".join(part.names) + "\n", path)
            parts[part.name] = replace(part, list=path)
    return replace(found, **parts)  # type: ignore[arg-type]


def dataset(found: Found, part: str) -> dict[str, Any]:
    """A data set for a config, without its pipeline: CocoDataset, FolderSegmentation or StreetSegmentation.

    Args:
        found: The data.
        part: ``train``, ``val`` or ``test``.

    Raises:
        UserError: D17: there is no such part.
    """
    own, root = found.part(part), Path(os.path.abspath(found.root))
    if found.task == PHOTOS:
        return {"type": "UnlabelledImages", "data_root": str(found.root)}
    assert own.annotations is not None
    images, annotations = _below(own.images, root), _below(own.annotations, root)
    meta: dict[str, Any] = {"classes": found.classes}
    if found.palette:
        meta["palette"] = [list(color) for color in found.palette]
    common = {"data_root": f"{root}{os.sep}", "metainfo": meta, **_list_of(own)}
    if found.task == DETECTION:
        return {"type": "CocoDataset", **common, "ann_file": annotations, "data_prefix": {"img": images}}
    prefix = {"img_path": images, "seg_map_path": annotations}
    if found.layout == CITYSCAPES:
        return {"type": "StreetSegmentation", **common, "data_prefix": prefix}
    meaning: dict[str, Any] = {"values": dict(found.values)} if found.values is not None else {}
    if found.colors:
        meaning = {"colors": [list(color) for color in found.colors]}
    return {"type": "FolderSegmentation", **common, "data_prefix": prefix, **meaning}


def evaluator(found: Found, part: str) -> dict[str, Any]:
    """The evaluator of a part: MSTCocoMetric of its images alone, or MSTIoUMetric.

    Raises:
        UserError: D17: there is no such part.
        ValueError: Photos have no labels to be scored by.
    """
    own = found.part(part)
    if found.task == PHOTOS:
        raise ValueError("photos have no labels to be scored by")
    if found.task != DETECTION:
        return {"type": "MSTIoUMetric"}
    metric = ["bbox", "segm"] if found.masks == "all" else ["bbox"]
    ann_file = os.path.abspath(str(own.annotations))
    return {"type": "MSTCocoMetric", "ann_file": ann_file, "metric": metric, **_list_of(own)}


def _list_of(part: Part) -> dict[str, Any]:
    if part.names is None:
        return {}
    return {"image_list": str(part.list) if part.list is not None else list(part.names)}


def _below(path: Path, root: Path) -> str:
    """Relative to the root, where it lies below it."""
    whole = Path(os.path.abspath(path))
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)
