"""The COCO metric of the configs: full precision, per-class tables, official result files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from mst_pretrain.runtime.atomic import write_json
from mst_pretrain.runtime.errors import UserError

from .baselines import BOXES, FrequentBoxes
from .coco_scores import LIBRARIES, CocoScores, load_ground_truth, score_coco
from .tables import coco_table

INSTANCES = ("bboxes", "scores", "labels", "masks", "mask_scores")


@METRICS.register_module()
class MSTCocoMetric(BaseMetric):
    """mAP of boxes and masks with the names of mmdet's CocoMetric, unrounded, at COCO's 1, 10 and 100 detections.

    Args:
        ann_file: Instance JSON of the images tested.
        metric: ``bbox``, ``segm`` or both.
        library: ``faster-coco-eval`` or ``pycocotools``.
        out_dir: Where ``detections.bbox.json`` and ``detections.segm.json`` go, in COCO's results format; None: not
            written.
        collect_device: As in MMEngine.

    Attributes:
        frequent: Gives the training split's most frequent boxes, or None without one; set before the evaluation.
        keep_found: Keep the detections in ``found`` after the evaluation.
        prints: Print the tables.
        report: After the evaluation: scores per class and size, for JSON.
        scores: The same as objects, by ``bbox`` and ``segm``.
        baseline: Those of the most frequent boxes.
        baseline_metrics: Their numbers under the metrics' names; empty without a baseline.
        found: Detections in COCO's results format, by ``bbox`` and ``segm``.

    Raises:
        UserError: The annotations cannot be used, or a class is not in them.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = ("bbox", "segm"),
        library: str = LIBRARIES[0],
        out_dir: str | None = None,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device)
        self.ann_file, self.library, self.out_dir = ann_file, library, out_dir
        self.iou_types = [metric] if isinstance(metric, str) else list(metric)
        unknown = set(self.iou_types) - {"bbox", "segm"}
        if unknown or not self.iou_types:
            raise UserError(
                f"the COCO metric takes bbox and segm, got {self.iou_types}. Correct the evaluator."
            )
        self.report: dict[str, Any] = {}
        self.frequent: Callable[[], FrequentBoxes | None] = lambda: None
        self.keep_found, self.prints = False, True
        self.scores: dict[str, CocoScores] = {}
        self.baseline: dict[str, CocoScores] = {}
        self.baseline_metrics: dict[str, float] = {}
        self.found: dict[str, list[dict[str, Any]]] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the detections of one batch: boxes float32 [N, 4] xyxy, masks as compressed RLE."""
        for sample in data_samples:
            self.results.append((int(sample["img_id"]), plain_instances(sample["pred_instances"])))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Score everything; mmdet's names, -1 where there is no object of a size."""
        classes = (self.dataset_meta or {}).get("classes")
        content = load_ground_truth(self.ann_file, "segm" in self.iou_types, classes)
        category_ids = category_ids_of(content, classes, self.ann_file)
        logger: MMLogger = MMLogger.get_current_instance()
        missing = len(content["images"]) - len({image_id for image_id, _ in results})
        if missing:
            logger.warning(
                f"{missing} of {len(content['images'])} images of {self.ann_file} were not predicted and count as "
                "images without a detection"
            )
        metrics: dict[str, float] = {}
        self.report = {"images": len(content["images"])}
        for iou_type in self.iou_types:
            found = [
                entry
                for image_id, instances in results
                for entry in coco_results(image_id, instances, category_ids, iou_type)
            ]
            if self.out_dir is not None:
                write_json(found, Path(self.out_dir, f"detections.{iou_type}.json"), indent=None)
            scores = score_coco(content, found, iou_type, self.library, category_ids)
            baseline = self._baseline(content, iou_type, category_ids)
            if self.prints:
                logger.info(f"{iou_type} AP in % ({scores.library})\n{coco_table(scores, baseline)}")
            self.scores[iou_type], self.report[iou_type] = scores, asdict(scores)
            if baseline is not None:
                self.report[iou_type]["baseline"] = {"name": BOXES, **asdict(baseline)}
                self.baseline_metrics |= _numbers(baseline, f"{self.prefix}/")
            if self.keep_found:
                self.found[iou_type] = found
            metrics |= _numbers(scores)
        return metrics

    def _baseline(
        self, content: dict[str, Any], iou_type: str, category_ids: Sequence[int]
    ) -> CocoScores | None:
        """Of the most frequent boxes; computed once, since neither they nor the annotations change."""
        if iou_type not in self.baseline:
            frequent = self.frequent()
            if frequent is None:
                return None
            self.baseline[iou_type] = frequent.scores(content, iou_type, self.library, category_ids)
        return self.baseline[iou_type]


def _numbers(scores: CocoScores, prefix: str = "") -> dict[str, float]:
    """mmdet's names; -1 where there is no object of a size."""
    return {
        f"{prefix}{scores.iou_type}_{name}": -1.0 if value is None else value
        for name, value in scores.statistics.items()
    }


def plain_instances(instances: Mapping[str, Any]) -> dict[str, Any]:
    """mmdet's ``pred_instances``, tensors or arrays by name, as arrays; masks as compressed RLE."""
    from pycocotools import mask as coco_masks

    arrays: dict[str, Any] = {
        key: torch.as_tensor(value).cpu().numpy() for key, value in instances.items() if key in INSTANCES
    }
    if "masks" in arrays:
        rles = [coco_masks.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in arrays["masks"]]
        arrays["masks"] = [{"size": list(rle["size"]), "counts": rle["counts"].decode()} for rle in rles]
    return arrays


def coco_results(
    image_id: int, instances: dict[str, Any], category_ids: Sequence[int], iou_type: str
) -> list[dict[str, Any]]:
    """One image's detections in COCO's results format (https://cocodataset.org/#format-results).

    Args:
        image_id: Of the annotations.
        instances: As :func:`plain_instances` gives them.
        category_ids: Category id by label.
        iou_type: ``bbox`` gives entries with boxes [x, y, width, height], ``segm`` entries with masks; the
            official evaluation measures an object's size by what the entry holds.

    Raises:
        UserError: Masks are wanted and the model has none.
    """
    if iou_type == "segm" and "masks" not in instances:
        raise UserError("the evaluator asks for segm and the model predicts no masks. Set its metric='bbox'.")
    entries: list[dict[str, Any]] = []
    scores = instances.get("mask_scores", instances["scores"]) if iou_type == "segm" else instances["scores"]
    for place, label in enumerate(instances["labels"].tolist()):
        entry = {"image_id": image_id, "category_id": category_ids[label], "score": float(scores[place])}
        if iou_type == "bbox":
            left, top, right, bottom = instances["bboxes"][place].tolist()
            entry["bbox"] = [left, top, right - left, bottom - top]
        else:
            entry["segmentation"] = instances["masks"][place]
        entries.append(entry)
    return entries


def category_ids_of(content: dict[str, Any], classes: Sequence[str] | None, source: str | Path) -> list[int]:
    """Category id by label, from the annotations' names, whatever their order.

    Raises:
        UserError: A class is missing.
    """
    ids = {category["name"]: category["id"] for category in content["categories"]}
    if classes is None:
        return list(ids.values())
    missing = [name for name in classes if name not in ids]
    if missing:
        raise UserError(
            f"{source} has no category '{missing[0]}' ({len(missing)} of {len(classes)} classes are missing). Give "
            "the annotations of the data that the model was trained for, or correct the classes."
        )
    return [ids[name] for name in classes]
