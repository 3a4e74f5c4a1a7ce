"""The mIoU metric of the configs: exact counts, confusion matrix, official label PNGs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from mst_pretrain.runtime.errors import UserError

from .label_images import label_image_path, write_label_image
from .segmentation_scores import SegmentationScores, confusion_matrix
from .tables import segmentation_table


@METRICS.register_module()
class MSTIoUMetric(BaseMetric):
    """aAcc, mIoU and mAcc in per cent under mmseg's names, from pixels counted in int64.

    mmseg's IoUMetric adds float32 counts, which lose pixels beyond 16.7 million, and rounds to two digits.

    Args:
        ignore_index: Label of pixels that do not count.
        out_dir: Where predicted label maps go as PNG; None: not written.
        label_ids: What a PNG holds for each label; None: the label itself. See :func:`label_ids_of`.
        image_root: The PNGs keep the images' folders below it.
        collect_device: As in MMEngine.

    Attributes:
        report: After the evaluation: scores per class and the confusion matrix, for JSON.
        scores: The same as an object.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        out_dir: str | None = None,
        label_ids: Sequence[int] | None = None,
        image_root: str | None = None,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device)
        self.ignore_index, self.out_dir = ignore_index, out_dir
        self.label_ids, self.image_root = label_ids, image_root
        self.report: dict[str, Any] = {}
        self.scores: SegmentationScores | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count one batch; write its label maps."""
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            prediction = np.asarray(sample["pred_sem_seg"]["data"].cpu()).squeeze(0)
            if "gt_sem_seg" not in sample:
                raise UserError(
                    f"{sample['img_path']} has no label map, so it cannot be scored. Put LoadAnnotations into the "
                    "test pipeline, or use tools/predict.py."
                )
            truth = np.asarray(sample["gt_sem_seg"]["data"].cpu()).squeeze(0)
            try:
                matrix = confusion_matrix(prediction, truth, num_classes, self.ignore_index)
            except ValueError as error:
                raise UserError(
                    f"label map {sample.get('seg_map_path')} of {sample['img_path']}: {error}. Correct the map, or "
                    "the classes of the config."
                ) from error
            self.results.append(matrix)
            if self.out_dir is not None:
                path = label_image_path(sample["img_path"], self.image_root, self.out_dir)
                write_label_image(prediction, path, self.label_ids or range(num_classes))

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Add the images' counts; a class that does not occur is no part of a mean."""
        classes = tuple(str(name) for name in self.dataset_meta["classes"])
        self.scores = SegmentationScores(np.asarray(results, np.int64).sum(0), classes)
        if not self.scores.matrix.any():
            raise UserError(
                f"none of {len(results)} label maps has a pixel of a known class. Check the label maps."
            )
        self.report = {"images": len(results), **self.scores.as_dict()}
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(f"IoU and accuracy in per cent\n{segmentation_table(self.scores)}")
        fractions = (self.scores.pixel_accuracy, self.scores.mean_iou, self.scores.mean_accuracy)
        return {
            name: 100 * value
            for name, value in zip(("aAcc", "mIoU", "mAcc"), fractions, strict=True)
            if value is not None
        }
