"""The mIoU metric of the configs: exact counts, confusion matrix, official label PNGs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from torch import Tensor

from mst_pretrain.runtime.devices import to_host
from mst_pretrain.runtime.errors import UserError

from .baselines import PRIOR, PositionPrior
from .label_images import label_image_path, write_label_image
from .segmentation_scores import SegmentationScores, count_pixels, matrix_of
from .tables import segmentation_table

PATHS = ("img_path", "seg_map_path")
KEPT_SIZES = 8  # of label maps, for which the position prior is kept


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
        prior: Gives the training split's position prior, or None without one; set before the evaluation.
        prints: Print the table.
        matrices: After the evaluation: confusion matrix of every image, int64 [N, C, C], in the data set's order.
        baseline: Scores of the position prior.
        baseline_metrics: Their numbers under the metrics' names; empty without a baseline.
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
        self.prior: Callable[[], PositionPrior | None] = lambda: None
        self.prints = True
        self.matrices: np.ndarray | None = None
        self.baseline: SegmentationScores | None = None
        self.baseline_metrics: dict[str, float] = {}
        self._prior_maps: dict[tuple[int, int], Tensor] = {}
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
            expected = self._prior_map(truth)
            if expected is not None:
                of_prior = count_pixels(expected, truth, num_classes, self.ignore_index)
                counts = torch.stack([counts, of_prior])
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
                self.results.append(_matrices(counts(), len(self.dataset_meta["classes"])))

    def _prior_map(self, truth: Tensor) -> Tensor | None:
        """The position prior at the size of a label map, and on its device."""
        prior = self.prior()
        if prior is None:
            return None
        height, width = int(truth.shape[0]), int(truth.shape[1])
        if (height, width) not in self._prior_maps:
            if len(self._prior_maps) == KEPT_SIZES:
                self._prior_maps.clear()
            labels = torch.from_numpy(prior.at(height, width).astype(np.int64))
            self._prior_maps[height, width] = labels.to(truth.device)
        return self._prior_maps[height, width]

    def evaluate(self, size: int) -> dict[str, float]:
        """MMEngine's, once all counts are there."""
        self._receive()
        return super().evaluate(size)

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Add the images' counts; a class that does not occur is no part of a mean."""
        classes = tuple(str(name) for name in self.dataset_meta["classes"])
        matrices = np.asarray(results, np.int64)
        if matrices.ndim == 4:  # the position prior's behind the model's
            self.baseline = SegmentationScores(matrices[:, 1].sum(0), classes)
            self.baseline_metrics = _per_cent(self.baseline)
            matrices = matrices[:, 0]
        self.matrices, self.scores = matrices, SegmentationScores(matrices.sum(0), classes)
        if not self.scores.matrix.any():
            raise UserError(
                f"none of {len(results)} label maps has a pixel of a known class. Check the label maps."
            )
        self.report = {"images": len(results), **self.scores.as_dict()}
        if self.baseline is not None:
            self.report["baseline"] = {"name": PRIOR, **self.baseline.as_dict()}
        logger: MMLogger = MMLogger.get_current_instance()
        if self.prints:
            logger.info(f"IoU and accuracy in %\n{segmentation_table(self.scores, self.baseline)}")
        return _per_cent(self.scores)


def _matrices(counts: Tensor, num_classes: int) -> np.ndarray:
    """int64 [C, C] of one image, or [2, C, C] with the position prior's."""
    if counts.ndim == 1:
        return matrix_of(counts, num_classes)
    return np.stack([matrix_of(part, num_classes) for part in counts])


def _per_cent(scores: SegmentationScores) -> dict[str, float]:
    """mmseg's names; what does not occur is left out."""
    fractions = (scores.pixel_accuracy, scores.mean_iou, scores.mean_accuracy)
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
