"""Data for detection and segmentation: built-in scenes, checks of users' folders, trivial baselines."""
