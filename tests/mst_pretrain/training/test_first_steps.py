"""The report on the first iterations."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from mst_pretrain.training.first_steps import FirstStepsHook, ground_truth


def test_first_steps_are_reported_and_later_ones_are_not() -> None:
    """The log would claim shapes, a loss or a weight change that the step did not have."""
    lines: list[str] = []
    model = torch.nn.Linear(3, 1, bias=False)
    runner = SimpleNamespace(model=model, iter=0, logger=SimpleNamespace(info=lines.append))
    batch = {"global_crops": torch.zeros(2, 2, 3, 8, 8), "local_crops": torch.zeros(2, 4, 3, 4, 4)}
    hook = FirstStepsHook(steps=1)
    for _ in range(2):
        hook.before_train_iter(runner, 0, batch)
        with torch.no_grad():
            model.weight += torch.tensor([[3.0, 0.0, 4.0]])
        hook.after_train_iter(runner, 0, batch, {"loss": torch.tensor(1.5)})
    assert len(lines) == 1
    assert lines[0].startswith(
        "Step 1: input global_crops [2, 2, 3, 8, 8], local_crops [2, 4, 3, 4, 4]; loss 1.5000;"
    )
    assert "weights moved by 5.000e+00" in lines[0] and "peak memory" in lines[0]


def test_objects_and_labelled_pixels_are_counted() -> None:
    """A fine-tuning's batch without ground truth would look like one with it."""

    class Sample(SimpleNamespace):
        def __contains__(self, key: str) -> bool:
            return hasattr(self, key)

    labels = torch.full((4, 4), 255)
    labels[0, :3] = 1
    objects = [Sample(gt_instances=[1, 2]), Sample(gt_instances=[3])]
    assert ground_truth({"data_samples": objects}) == "3 ground-truth objects; "
    pixels = [Sample(gt_sem_seg=SimpleNamespace(data=labels))]
    assert ground_truth({"data_samples": pixels}) == "3 labelled pixels; "
    assert ground_truth({"data_samples": [Sample()]}) == ""
