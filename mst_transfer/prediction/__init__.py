"""Predictions for images that nobody labelled: as arrays, as pictures, as official result files."""

from .predictor import Detections, Prediction, Predictor, Segmentation, predict

__all__ = ["Detections", "Prediction", "Predictor", "Segmentation", "predict"]
