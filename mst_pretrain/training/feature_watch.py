"""Whether the features become better while a pretraining runs: k-NN where labelled images are named, and RankMe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_gather, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..evaluation.features import extract_features
from ..evaluation.held_out import LabelledPart, open_held_out, usual_k
from ..evaluation.knn import accuracy
from ..evaluation.protocols import TEMPERATURE
from ..evaluation.rankme import FeatureGram
from ..evaluation.ranks import gather_rows
from ..evaluation.shared_knn import shared_knn
from ..runtime.devices import precision_on
from ..runtime.errors import UserError
from .best import Best
from .metrics_file import MetricsFile
from .run_log import RunLogHook
from .schedule_and_teacher import unwrap
from .scores import VALIDATION, continue_scores, record_scores
from .watch import StopHook, WatchHook

KNN, RANKME = "knn", "rankme"  # names of the scores
# Images whose features are summed for RankMe, for each dimension of them [ours]; fewer than half of these give no
# RankMe, which counts at most as many directions as there are images.
IMAGES_PER_DIMENSION = 10
ENLARGED = 256 / 224  # short side before the centre crop [code: DINO]
BATCH = 64


@HOOKS.register_module()
class FeatureWatchHook(Hook):
    """Measures the teacher's features every so many epochs and at the end of the schedules; "best" follows the score.

    RankMe is of the features that the teacher computed for the last steps' global views, so it costs no forward pass.
    k-NN is of the centre crops of labelled images, as ``tools/eval_knn.py`` has it. The loop calls :meth:`measure`.

    Args:
        knn: Labelled images, see :func:`open_held_out`; None: RankMe alone, and "best" is by it.
        every_epochs: Passes over the images between two measurements, > 0, maybe a fraction.

    Raises:
        UserError: The labelled images cannot be used, or the interval is not positive.
    """

    priority = "ABOVE_NORMAL"  # a checkpoint of the same step holds its sums

    def __init__(self, knn: str | None = None, every_epochs: float = 10.0) -> None:
        if not every_epochs > 0:
            raise UserError(f"evaluation.every_epochs is {every_epochs}. Give a number above 0.")
        self.every_epochs, self.named = every_epochs, knn
        self.parts = None if knn is None else open_held_out(knn)
        self.sums = FeatureGram()

    def before_train(self, runner: Any) -> None:
        """Fix the interval, and go on with the scores of a resumed run."""
        loop, model = runner.train_loop, unwrap(runner)
        self.end = loop.schedule_iters
        self.interval = max(1, round(self.every_epochs * loop.iters_per_epoch))
        self.wanted = IMAGES_PER_DIMENSION * model.student.backbone.num_features
        self.per_step = loop.per_process * get_world_size()  # of the last micro-batch
        self.steps = min(self.interval, -(-self.wanted // self.per_step))
        if self.parts is not None:
            train, val = (len(part.labels) for part in self.parts)
            runner.logger.info(
                f"k-NN every {self.interval:,} steps: {val:,} held-out images of {self.named}, each by the "
                f"{usual_k(train)} nearest of {train:,} others."
            )
        log = next((hook for hook in runner.hooks if isinstance(hook, RunLogHook)), None)
        if log is None:
            self.file, self.best = MetricsFile(runner.files.evaluations), Best(None, None)
            continue_scores(runner, self.file, self.best, begun=False)
        self.log = log

    def is_due(self, iteration: int) -> bool:
        """Whether the features are measured after this many iterations; not shortly before the end, where they are."""
        return iteration == self.end or (
            iteration % self.interval == 0 and 0 < iteration <= self.end - self.steps
        )

    def due_between(self, done: int, last: int) -> int:
        """How many measurements follow iterations ``done + 1`` to ``last``."""
        regular = min(last, self.end - self.steps) // self.interval - done // self.interval
        return max(regular, 0) + int(done < self.end <= last)

    def next_due(self, iteration: int) -> int:
        """The first measurement at or after this iteration."""
        due = -(-iteration // self.interval) * self.interval
        return due if self.is_due(due) else self.end

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Add the teacher's features of one of the last steps before a measurement."""
        done = runner.iter + 1
        before = self.next_due(done) - done
        if not 0 <= before < self.steps:
            return
        if before == self.steps - 1:
            self.sums = FeatureGram()
        model: Any = unwrap(runner)
        if not getattr(runner.optim_wrapper, "skipped", False):
            self.sums.add(torch.cat(all_gather(model.teacher_pooled.float().contiguous())))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """A resumed run measures what the uninterrupted one does."""
        if self.sums.gram is not None:
            checkpoint["feature_sums"] = {"gram": self.sums.gram.cpu(), "rows": self.sums.rows}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on adding."""
        if runner._resume and "feature_sums" in checkpoint:
            self.sums = FeatureGram(**checkpoint["feature_sums"])

    def measure(self, runner: Any) -> None:
        """Measure what can be, write the scores, and keep the weights if they are the best."""
        with runner.pace.pause(VALIDATION):
            scores = {} if self.parts is None else {KNN: self._knn(runner, *self.parts)}
            if 2 * self.sums.rows >= min(self.wanted, self.steps * self.per_step):
                scores[RANKME] = self.sums.rankme()
            self.sums = FeatureGram()
            if not scores:
                runner.logger.info(f"Step {runner.iter}: no RankMe, too few of the last steps were seen.")
            elif is_main_process():
                file, best = (self.file, self.best) if self.log is None else (self.log.file, self.log.best)
                record_scores(runner, file, best, scores, main=next(iter(scores)))

    def _knn(self, runner: Any, train: LabelledPart, val: LabelledPart) -> float:
        """Per cent of the held-out images whose class their neighbours have."""
        trunk = unwrap(runner).teacher.backbone
        device = next(trunk.parameters()).device
        crop = int(min(trunk.patch_embed.img_size))
        options: dict[str, Any] = {
            "resize": round(crop * ENLARGED),
            "crop": crop,
            "batch_size": BATCH,
            "workers": runner.train_dataloader.num_workers,
            "device": device,
            "precision": precision_on(device, "auto"),
            "gather": False,
            "after_batch": _heeds(runner),
        }
        known = extract_features(trunk, train.source, indices=train.indices, what="train features", **options)
        asked = extract_features(trunk, val.source, indices=val.indices, what="val features", **options)
        asked = gather_rows(asked.to(device), len(val.labels))  # on the device: NCCL takes no other tensors
        k = usual_k(len(train.labels))
        given = (known.to(device), train.labels.to(device), asked)
        return accuracy(shared_knn(*given, [k], TEMPERATURE)[k], val.labels)


def _heeds(runner: Any) -> Callable[[], None]:
    """Called after every batch of a measurement, which is a sign of life, and ends where the run is asked to stop."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, (WatchHook, StopHook))]

    def look() -> None:
        for hook in hooks:
            hook.after_val_iter(runner, 0)

    return look
