"""The mIoU metric of the configs: exact counts, confusion matrix, official label PNGs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from torch import Tensor

from mst_pretrain.runtime.devices import to_host
from mst_pretrain.runtime.errors import UserError

from .label_images import label_image_path, write_label_image
from .segmentation_scores import SegmentationScores, count_pixels, matrix_of
from .tables import segmentation_table

PATHS = ("img_path", "seg_map_path")


@METRICS.register_module()
class MSTIoUMetric(BaseMetric):
    """aAcc, mIoU and mAcc in per cent under mmseg's names, from pixels counted in int64.

    mmseg's IoUMetric adds float32 counts, which lose pixels beyond 16.7 million, and rounds to two digits. The pixels
    are counted where the predictions are; a GPU is not waited for, its counts come to the host a batch later.

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
        self._coming: deque[tuple[Callable[[], Tensor], dict[str, Any]]] = deque()

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count one batch; write its label maps."""
        num_classes, waits = len(self.dataset_meta["classes"]), False
        for sample in data_samples:
            prediction = sample["pred_sem_seg"]["data"].squeeze(0)
            if "gt_sem_seg" not in sample:
                raise UserError(
                    f"{sample['img_path']} has no label map, so it cannot be scored. Put LoadAnnotations into the "
                    "test pipeline, or use tools/predict.py."
                )
            truth = sample["gt_sem_seg"]["data"].squeeze(0).to(prediction.device)
            with _named(sample):
                counts = count_pixels(prediction, truth, num_classes, self.ignore_index)
            self._coming.append((to_host(counts), {name: sample.get(name) for name in PATHS}))
            if self.out_dir is not None:
                path = label_image_path(sample["img_path"], self.image_root, self.out_dir)
                write_label_image(prediction.cpu().numpy(), path, self.label_ids or range(num_classes))
            waits |= counts.is_cuda
        self._receive(len(data_samples) if waits else 0)

    def _receive(self, later: int = 0) -> None:
        """Put the counts of all but the last ``later`` images into the results."""
        while len(self._coming) > later:
            counts, paths = self._coming.popleft()
            with _named(paths):
                self.results.append(matrix_of(counts(), len(self.dataset_meta["classes"])))

    def evaluate(self, size: int) -> dict[str, float]:
        """MMEngine's, once all counts are there."""
        self._receive()
        return super().evaluate(size)

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


@contextmanager
def _named(sample: dict[str, Any]) -> Iterator[None]:
    """Tell which label map could not be counted."""
    try:
        yield
    except ValueError as error:
        raise UserError(
            f"label map {sample.get('seg_map_path')} of {sample['img_path']}: {error}. Correct the map, or the classes "
            "of the config."
        ) from error
