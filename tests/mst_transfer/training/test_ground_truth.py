"""The ground truth that the log of a fine-tuning names."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from mst_transfer.training.ground_truth import LabelledFirstStepsHook


def test_objects_and_labelled_pixels_are_counted() -> None:
    """A batch without ground truth would look like one with it."""
    ground_truth = LabelledFirstStepsHook().ground_truth

    class Sample(SimpleNamespace):
        def __contains__(self, key: str) -> bool:
            return hasattr(self, key)

    labels = torch.full((4, 4), 255)
    labels[0, :3] = 1
    assert ground_truth({"data_samples": [Sample(gt_instances=[1, 2]), Sample(gt_instances=[3])]}).startswith(
        "3 "
    )
    assert ground_truth({"data_samples": [Sample(gt_sem_seg=SimpleNamespace(data=labels))]}).startswith(
        "3 labelled"
    )
    assert ground_truth({"data_samples": [Sample()]}) == ""
