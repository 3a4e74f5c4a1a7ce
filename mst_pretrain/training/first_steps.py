"""What the first iterations of a run really saw and did, in the log: shapes, labels, weight change, memory."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..runtime.environment import peak_memory


@HOOKS.register_module()
class FirstStepsHook(Hook):
    """Logs the first ``steps`` iterations after a start or a resume, then does nothing."""

    priority = "NORMAL"  # before the logger, which resets the peak of the device's memory

    def __init__(self, steps: int = 2) -> None:
        self.steps = steps
        self.before: list[Tensor] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the weights to compare with."""
        if self.steps > 0:
            self.before = [p.detach().clone() for p in runner.model.parameters() if p.requires_grad]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """One line per iteration."""
        if self.steps <= 0:
            return
        self.steps -= 1
        after = [p.detach() for p in runner.model.parameters() if p.requires_grad]
        pairs = zip(self.before, after, strict=True)
        change = sum(float((new - old).double().square().sum()) for old, new in pairs)
        self.before = []
        runner.logger.info(
            f"Step {runner.iter + 1}: input {', '.join(input_shapes(data_batch))}; "
            f"{ground_truth(data_batch)}loss {float(outputs['loss'].detach()):.4f}; "
            f"weights moved by {change**0.5:.3e} (L2); peak memory {peak_memory():.2f} GiB"
        )


def input_shapes(batch: Any) -> list[str]:
    """Shapes of the image tensors of a batch, as ``name [..]`` in the order they stand in it."""
    if "inputs" in batch:
        return [str(list(image.shape)) for image in batch["inputs"]]
    return [f"{name} {list(value.shape)}" for name, value in batch.items() if name.endswith("_crops")]


def ground_truth(batch: Any) -> str:
    """How many objects or labelled pixels a batch of mmdet or mmseg holds; nothing for one without labels."""
    samples = batch.get("data_samples", [])
    objects = [len(sample.gt_instances) for sample in samples if "gt_instances" in sample]
    labelled = [int((sample.gt_sem_seg.data != 255).sum()) for sample in samples if "gt_sem_seg" in sample]
    if objects:
        return f"{sum(objects)} ground-truth objects; "
    return f"{sum(labelled)} labelled pixels; " if labelled else ""
