"""COCO average precision of a list of detections, by faster-coco-eval or by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mst_pretrain.runtime.errors import UserError

from ..data.coco_file import read_coco
from ..data.coco_rules import id_problems
from ..data.problems import stop_at_first

LIBRARIES = ("faster-coco-eval", "pycocotools")
# The twelve numbers of COCO's evaluation, in its order (https://cocodataset.org/#detection-eval).
STATISTICS = (
    *("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"),
    *("AR@1", "AR@10", "AR@100", "AR_s@100", "AR_m@100", "AR_l@100"),
)
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class CocoScores:
    """Average precision and recall, fractions in [0, 1]; None where there is no object to find.

    Attributes:
        iou_type: ``bbox`` or ``segm``.
        library: Which one computed it, with its version.
        statistics: COCO's twelve numbers by the names of :data:`STATISTICS`.
        per_class: Class name to AP, AP50, AP75, and AP of small, medium and large objects.
    """

    iou_type: str
    library: str
    statistics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]


def load_ground_truth(ann_file: str | Path) -> dict[str, Any]:
    """Read instance annotations whose ids COCO's evaluation can use.

    Raises:
        UserError: As :func:`read_coco`, or :func:`id_problems` finds one.
    """
    content = read_coco(ann_file)
    stop_at_first(id_problems(Path(ann_file), content))
    return content


def score_coco(
    ground_truth: str | Path | dict[str, Any],
    results: Sequence[dict[str, Any]],
    iou_type: str,
    library: str = LIBRARIES[0],
    category_ids: Sequence[int] | None = None,
) -> CocoScores:
    """Score detections in COCO's results format as the official evaluation does.

    Args:
        ground_truth: Instance JSON, its path or what :func:`load_ground_truth` read.
        results: ``{image_id, category_id, score, bbox}`` with boxes [x, y, width, height] for ``bbox``, and with
            ``segmentation`` (compressed RLE) for ``segm``; there a ``bbox`` is left out of account, because the
            size of an object is then its mask's.
        iou_type: ``bbox`` or ``segm``.
        library: ``faster-coco-eval`` or ``pycocotools``; the other one is never used in its place.
        category_ids: Categories that count, all by default.

    Raises:
        UserError: The library is not installed, or a result names an image that the ground truth lacks.
        ValueError: An unknown ``iou_type`` or ``library``.
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type must be 'bbox' or 'segm', got {iou_type!r}")
    coco_class, eval_class, version = load_library(library)
    content = ground_truth if isinstance(ground_truth, dict) else load_ground_truth(ground_truth)
    known = {image["id"] for image in content["images"]}
    strange = next((result["image_id"] for result in results if result["image_id"] not in known), None)
    if strange is not None:
        raise UserError(
            f"a result is of image_id {strange}, which the ground truth does not have. Score it against the "
            "annotations of the same images."
        )
    wanted = sorted(category_ids or (category["id"] for category in content["categories"]))
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries print their steps
        truth = _indexed(coco_class, content, [dict(a) for a in content["annotations"]])
        found = _indexed(coco_class, content, [_detection(i, r, iou_type) for i, r in enumerate(results, 1)])
        evaluation = eval_class(truth, found, iou_type)
        evaluation.params.catIds = wanted
        evaluation.params.imgIds = sorted(known)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    # [10 IoU thresholds, 101 recalls, classes, 4 areas, 3 max. detections]
    precision = evaluation.eval["precision"]
    return CocoScores(
        iou_type,
        f"{library} {version}",
        {name: _or_none(value) for name, value in zip(STATISTICS, evaluation.stats[:12], strict=True)},
        {names[i]: _class_scores(precision[:, :, place]) for place, i in enumerate(wanted)},
    )


def load_library(library: str) -> tuple[Any, Any, str]:
    """The ground truth's class, the evaluation's class, and the version.

    Raises:
        UserError: The library is not installed.
        ValueError: There is no such library.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        if library == "faster-coco-eval":
            from faster_coco_eval import COCO, COCOeval_faster

            return COCO, COCOeval_faster, version("faster-coco-eval")
        if library == "pycocotools":
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval

            return COCO, COCOeval, version("pycocotools")
    except (ImportError, PackageNotFoundError) as error:
        other = LIBRARIES[1 - LIBRARIES.index(library)]
        raise UserError(
            f"{library} cannot be imported ({error}). Install it: pip install {library}; or name the other one, "
            f"which gives the same numbers: --coco-library {other}"
        ) from error
    raise ValueError(f"library must be one of {LIBRARIES}, got {library!r}")


def _indexed(coco_class: Any, content: dict[str, Any], annotations: list[dict[str, Any]]) -> Any:
    """A library's COCO object, without a file and also where there is no annotation."""
    coco = coco_class()
    coco.dataset = {
        "info": content.get("info", {}),
        "images": content["images"],
        "categories": content["categories"],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _detection(number: int, result: dict[str, Any], iou_type: str) -> dict[str, Any]:
    """A result with what ``loadRes`` of both libraries adds: its number and its area, by box or by mask."""
    from pycocotools import mask as masks

    kept = {key: result[key] for key in ("image_id", "category_id", "score")} | {"id": number, "iscrowd": 0}
    if iou_type == "bbox":
        return kept | {"bbox": result["bbox"], "area": result["bbox"][2] * result["bbox"][3]}
    rle = result["segmentation"]
    return kept | {
        "segmentation": rle,
        "area": float(masks.area(rle)),
        "bbox": [float(v) for v in masks.toBbox(rle)],
    }


def _class_scores(precision: np.ndarray) -> dict[str, float | None]:
    """AP of one class at 100 detections per image; ``precision`` [10, 101, 4 areas: all and each size, 3]."""
    precision = precision[..., -1]
    scores = {"AP": precision[..., 0], "AP50": precision[0, :, 0], "AP75": precision[5, :, 0]}
    scores |= {f"AP_{size}": precision[..., place] for place, size in enumerate(SIZES, 1)}
    return {name: _mean(values) for name, values in scores.items()}


def _mean(precision: np.ndarray) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else None


def _or_none(value: float) -> float | None:
    """COCO writes -1 where there is no object."""
    return None if value < 0 else float(value)
