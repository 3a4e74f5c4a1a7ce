"""Data for detection and segmentation: layouts and checks."""
