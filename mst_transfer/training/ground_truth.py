"""The ground truth of the first iterations in the log: a run on empty labels looks like any other."""

from __future__ import annotations

from typing import Any

from mmengine.registry import HOOKS

from mst_pretrain.training.first_steps import FirstStepsHook


@HOOKS.register_module()
class LabelledFirstStepsHook(FirstStepsHook):
    """Logs the first iterations with the objects or labelled pixels of their batches."""

    def ground_truth(self, batch: Any) -> str:
        """How many objects or labelled pixels a batch of mmdet or mmseg holds."""
        samples = batch["data_samples"]
        objects = [len(sample.gt_instances) for sample in samples if "gt_instances" in sample]
        labelled = [
            int((sample.gt_sem_seg.data != 255).sum()) for sample in samples if "gt_sem_seg" in sample
        ]
        if objects:
            return f"{sum(objects)} ground-truth objects; "
        return f"{sum(labelled)} labelled pixels; " if labelled else ""
