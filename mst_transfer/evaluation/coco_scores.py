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
from ..data.coco_repair import repaired
from ..data.coco_rules import entry_problems
from ..data.image_lists import ImageList, of_images
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


def load_ground_truth(
    ann_file: str | Path,
    masks: bool = False,
    classes: Sequence[str] | None = None,
    image_list: ImageList = None,
) -> dict[str, Any]:
    """Read instance annotations that COCO's evaluation can use; with ``masks``, every one must have a mask.

    Annotations of categories other than ``classes`` need not be sound. With ``image_list``, only its images count.

    Raises:
        UserError: As :func:`read_coco`, or :func:`entry_problems` finds one.
    """
    content = of_images(read_coco(ann_file), image_list, ann_file)
    stop_at_first(entry_problems(Path(ann_file), content, masks, classes))
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
    masks = iou_type == "segm"
    if isinstance(ground_truth, dict):
        content = _checked(ground_truth, masks, category_ids)
    else:
        content = load_ground_truth(ground_truth, masks)
    _check_results(results, content, iou_type)
    wanted = sorted(category_ids or (category["id"] for category in content["categories"]))
    numbered = _Numbered(content)
    objects = [_object(a, iou_type) for a in content["annotations"] if a["category_id"] in wanted]
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries print their steps
        truth = _indexed(coco_class, numbered, objects)
        found = _indexed(coco_class, numbered, [_detection(r, iou_type) for r in results])
        evaluation = eval_class(truth, found, iou_type)
        evaluation.params.catIds = [numbered.categories[i] for i in wanted]
        evaluation.params.imgIds = sorted(numbered.images.values())
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {category["id"]: category["name"] for category in content["categories"]}
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


def _checked(content: dict[str, Any], masks: bool, category_ids: Sequence[int] | None) -> dict[str, Any]:
    """Annotations that were not read by us: the libraries hang, or count wrong, where they are not sound."""
    content, _ = repaired(content)
    classes = [c["name"] for c in content["categories"] if c["id"] in category_ids] if category_ids else None
    stop_at_first(entry_problems(Path("the ground truth"), content, masks, classes))
    return content


def _check_results(results: Sequence[dict[str, Any]], content: dict[str, Any], iou_type: str) -> None:
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    for result in results:
        image_id = result["image_id"]
        if image_id not in sizes:
            raise UserError(
                f"a result is of image_id {image_id}, which the ground truth does not have. Score it against the "
                "annotations of the same images."
            )
        if iou_type == "segm" and list(result["segmentation"]["size"]) != sizes[image_id]:
            raise UserError(
                f"a mask of image_id {image_id} has the size {result['segmentation']['size']}, and the ground truth "
                f"says {sizes[image_id]} (height, width). Predict the images that were annotated, or correct the JSON."
            )


class _Numbered:
    """Images and categories by numbers 1, 2, ... in the order of their ids, which may be any integers.

    Both libraries are then given ids that they can hold; equal scores keep their order.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        images = sorted(content["images"], key=lambda image: image["id"])
        self.images = {image["id"]: number for number, image in enumerate(images, 1)}
        self.categories = {
            i: number for number, i in enumerate(sorted(c["id"] for c in content["categories"]), 1)
        }
        self.entries = [
            {"id": self.images[image["id"]], "height": image["height"], "width": image["width"]}
            for image in images
        ]


def _indexed(coco_class: Any, numbered: _Numbered, annotations: list[dict[str, Any]]) -> Any:
    """A library's COCO object, without a file and also where there is no annotation."""
    coco = coco_class()
    coco.dataset = {
        "info": {},
        "images": numbered.entries,
        "categories": [{"id": number, "name": str(number)} for number in numbered.categories.values()],
        "annotations": [
            {
                **annotation,
                "id": number,
                "image_id": numbered.images[annotation["image_id"]],
                "category_id": numbered.categories[annotation["category_id"]],
            }
            for number, annotation in enumerate(annotations, 1)
        ],
    }
    coco.createIndex()
    return coco


def _object(annotation: dict[str, Any], iou_type: str) -> dict[str, Any]:
    """What the evaluation needs of an annotation, and nothing else that a library might take into account."""
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    return {key: annotation[key] for key in (*keys, *(["segmentation"] if iou_type == "segm" else []))}


def _detection(result: dict[str, Any], iou_type: str) -> dict[str, Any]:
    """A result with what ``loadRes`` of both libraries adds: its area, by box or by mask."""
    from pycocotools import mask as masks

    kept = {key: result[key] for key in ("image_id", "category_id", "score")} | {"iscrowd": 0}
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
