"""Scores of detections and label maps, and the official result files."""

from .coco_metric import MSTCocoMetric
from .coco_scores import CocoScores, score_coco
from .iou_metric import MSTIoUMetric
from .segmentation_scores import SegmentationScores, confusion_matrix
from .tta import MSTDetTTAModel

__all__ = [
    "CocoScores",
    "MSTCocoMetric",
    "MSTDetTTAModel",
    "MSTIoUMetric",
    "SegmentationScores",
    "confusion_matrix",
    "score_coco",
]
