"""Predictions for images that nobody labelled: as arrays, as pictures, as official result files."""

from .predictions import Detections, Prediction, Segmentation
from .predictor import Predictor, predict

__all__ = ["Detections", "Prediction", "Predictor", "Segmentation", "predict"]
