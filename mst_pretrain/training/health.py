"""Noticing a run that goes wrong: steps that are not finite, and collapse. Both are counted, named, and end the run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..data.files import first_of
from ..runtime.atomic import link_atomic
from ..runtime.errors import UserError
from .failing_saves import SparingHook
from .schedule_and_teacher import broken_weight, last_good, unwrap

SKIPPED = "skipped_steps.jsonl"
BEFORE_COLLAPSE = "before_collapse_{}.pth"
WATCHED = ("loss_ce", "teacher_entropy", "kl", "feature_std")
# Thresholds of a collapse, all [ours]. To one answer for all images, centred away: loss and teacher entropy above this
# share of ln K. To one prototype: teacher entropy and KL below that share of it. To one feature: a standard deviation
# of the normalised features below this share of 1 / sqrt(D), the value of directions drawn at random.
UNIFORM, ONE_PROTOTYPE, ONE_FEATURE = 0.995, 0.005, 0.02


@HOOKS.register_module()
class HealthHook(Hook):
    """Leaves out steps that are not finite and stops a run that collapsed.

    A step whose gradients are not finite moves nothing: the optimizer wrapper skips it, the teacher and the centre
    stay, and the buffers (batch norm statistics) are put back here. float16's loss scale overflows from time to
    time; that is such a step too, with a finite loss. A collapsed run is not skipped through, because only further
    steps can lead out of it: it is reported, and stopped if it lasts.

    Args:
        max_skipped: Stop after so many skipped steps in a row.
        collapse_interval: Steps over which the watched values are averaged before they are judged; skipped steps do
            not count.
        collapse_patience: Stop when every average of so many iterations showed collapse; 0 only reports it.
    """

    priority = "ABOVE_NORMAL"  # after the teacher, before logs and checkpoints

    def __init__(
        self, max_skipped: int = 20, collapse_interval: int = 50, collapse_patience: int = 5000
    ) -> None:
        self.max_skipped = max_skipped
        self.collapse_interval, self.collapse_patience = collapse_interval, collapse_patience
        self.buffers: list[Tensor] = []
        self.skipped_in_a_row, self.skipped, self.collapsed_iters = 0, 0, 0
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.kept = ""  # the healthy checkpoint of the present collapse
        self.healthy = ""  # the last one when no collapse was seen

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """A collapse outlasts a restart."""
        checkpoint["health"] = {"collapsed_iters": self.collapsed_iters, "kept": self.kept}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on counting: a collapsed checkpoint must not be kept in the healthy one's place."""
        state = checkpoint.get("health", {}) if runner._resume else {}
        self.collapsed_iters, self.kept = state.get("collapsed_iters", 0), state.get("kept", "")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the buffers a step may spoil."""
        self.buffers = [buffer.clone() for buffer in unwrap(runner).buffers()]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Judge this step; end the run where too many in a row were skipped, or it has collapsed for too long."""
        if runner.optim_wrapper.skipped:
            self._report_skipped(runner, float(outputs["loss"].detach()))
            return
        self.skipped_in_a_row = 0
        if runner.iter < _warmup(runner):
            return
        for name in WATCHED:
            self.sums[name] = self.sums.get(name, 0) + outputs[name].detach().float()
        self.summed += 1
        if self.summed == self.collapse_interval:
            self._judge_collapse(runner)

    def _report_skipped(self, runner: Any, loss: float) -> None:
        """All processes come here together: they hold the same gradients."""
        for buffer, kept in zip(unwrap(runner).buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        self.skipped_in_a_row += 1
        self.skipped += 1
        ranks = all_gather_object((loss, runner.train_loop.image_names()))
        bad = [rank for rank, (value, _) in enumerate(ranks) if not math.isfinite(value)]
        names = [name for rank in bad or range(len(ranks)) for name in ranks[rank][1]]
        what = "the loss" if bad else "a gradient"
        listing = Path(runner.work_dir, SKIPPED)
        if is_main_process():
            entry = {"step": runner.iter + 1, "losses": [repr(value) for value, _ in ranks], "images": names}
            with runner.saves.spared(str(listing)), open(listing, "a") as file:
                file.write(json.dumps(entry) + "\n")
        scaled = not bad and hasattr(runner.optim_wrapper, "loss_scaler")
        runner.logger.warning(
            f"Step {runner.iter + 1} skipped, {self.skipped_in_a_row} in a row, {self.skipped} in all: {what} is not "
            f"finite{f' on rank {bad[0]}' if len(ranks) > 1 and bad else ''}. Weights, teacher and centre stay as "
            f"they were. {'The loss scale is lowered. ' if scaled else ''}"
            f"Images of the batch: {first_of(names)} ({listing})"
        )
        if self.skipped_in_a_row >= self.max_skipped:
            finite = runner.iter + 1 - self.skipped_in_a_row
            suspect = ""
            if runner.saved_iter == finite > 0:
                suspect = f"It is of step {finite}, which may have broken the weights: take an older one. "
            raise UserError(
                f"{self.skipped_in_a_row} steps in a row, up to step {runner.iter + 1}, were skipped: {what} is not "
                f"finite. {last_good(runner)} {suspect}Usual causes: a learning rate too high for this batch (lower "
                "default_hooks.schedule.base_lr or lengthen its warmup_epochs), float16 overflow (use bfloat16: "
                "optim_wrapper.type=MSTOptimWrapper, dtype=bfloat16), or broken images: their names are in "
                f"{listing}. Then continue with --resume."
            )

    def _judge_collapse(self, runner: Runner) -> None:
        model = unwrap(runner)
        total = torch.stack([self.sums[name] for name in WATCHED])
        all_reduce(total, op="mean")
        self.sums, self.summed = {}, 0
        mean = dict(zip(WATCHED, (total / self.collapse_interval).tolist(), strict=True))
        signs = signs_of_collapse(
            mean, len(model.distillation.center), model.student.backbone.num_features, model.lambda_ce
        )
        if not signs:
            self.collapsed_iters, self.healthy = 0, runner.message_hub.get_info("last_ckpt", "")
            return
        if self.collapsed_iters == 0:
            self._keep_last(runner)
        self.collapsed_iters += self.collapse_interval
        last = f"The last checkpoint before it stays: {self.kept}." if self.kept else last_good(runner)
        found = "; ".join(signs)
        what = f"The run looks collapsed, for {self.collapsed_iters} iterations now: {found}. {last}"
        runner.logger.warning(what)
        if self.collapse_patience and self.collapsed_iters >= self.collapse_patience:
            raise UserError(
                f"{what} Usual causes: a teacher temperature too high or too low (0.04 to 0.07), a momentum too low "
                "for a small batch (default_hooks.schedule.momentum), a learning rate too high, too few images per "
                "step for the centre (model.distillation.center_momentum), masks too strong (model.masking). "
                "Change one and start again, or --resume that checkpoint."
            )

    def _keep_last(self, runner: Any) -> None:
        """Later checkpoints will push the healthy one out, so it gets a second name. Where it is gone: the last."""
        last = Path(self.healthy)
        if not last.is_file():
            last = Path(runner.message_hub.get_info("last_ckpt", ""))
        kept = runner.files.checkpoints / BEFORE_COLLAPSE.format(last.stem)
        self.kept = str(kept) if last.is_file() else ""
        if self.kept and is_main_process():
            link_atomic(last, kept)


def signs_of_collapse(
    mean: dict[str, float], prototypes: int, width: int, lambda_ce: float = 1.0
) -> list[str]:
    """What says collapse in averages of the watched values; empty for a healthy run.

    Args:
        mean: Averages by the names in ``WATCHED``; ``loss_ce`` as logged, times ``lambda_ce``.
        prototypes: K.
        width: D of the global feature.
        lambda_ce: Weight of the loss.
    """
    full = math.log(prototypes)
    loss, entropy = mean["loss_ce"] / lambda_ce if lambda_ce else 0.0, mean["teacher_entropy"]
    signs = []
    if min(loss, entropy) > UNIFORM * full:
        signs.append(
            f"loss_ce {loss:.3f} and teacher entropy {entropy:.3f} are not below ln K = {full:.3f}: every "
            "prototype is as likely as any other, for every image"
        )
    if lambda_ce and max(entropy, mean["kl"]) < ONE_PROTOTYPE * full:
        signs.append(
            f"teacher entropy {entropy:.4f} and KL {mean['kl']:.4f}: one prototype takes every image"
        )
    if mean["feature_std"] < ONE_FEATURE / width**0.5:
        signs.append(
            f"feature standard deviation {mean['feature_std']:.5f}, directions at random have "
            f"{1 / width**0.5:.5f}: all images have one feature"
        )
    return signs


def _warmup(runner: Runner) -> int:
    """Near ln K is where every run starts: nothing is judged before the learning rate has warmed up."""
    schedules = [hook.lr_schedule.warmup for hook in runner.hooks if hasattr(hook, "lr_schedule")]
    return max(schedules, default=0)


@HOOKS.register_module()
class HealthyCheckpointHook(SparingHook):
    """MMEngine's, by iteration, and never of broken weights.

    Once a step has broken the weights every later one is skipped: checkpoints of those would push out the good ones.
    So one that is due at a skipped step waits for the next that is finite.
    """

    def __init__(self, *args: Any, by_epoch: bool = False, **kwargs: Any) -> None:
        if by_epoch:
            raise UserError(
                "default_hooks.checkpoint.by_epoch is True. Pretraining counts iterations: leave it out."
            )
        super().__init__(*args, by_epoch=False, **kwargs)
        self.waiting, self.skipped_in_a_row = False, 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save what is due, or was due at steps skipped since; the end also after one skipped step.

        Nothing is written where a weight is not finite, or the run ends on several skipped steps: a UserError.
        """
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if runner.optim_wrapper.skipped else 0
        self.waiting |= self.every_n_train_iters(runner, self.interval, self.save_begin)
        last = self.save_last and self.is_last_train_iter(runner)
        if not last and (self.skipped_in_a_row or not self.waiting):
            return
        broken = broken_weight(runner)
        if broken or self.skipped_in_a_row > 1:
            skipped = f"{self.skipped_in_a_row} skipped steps end the run"
            what = f"{broken} is not finite" if broken else skipped
            raise UserError(
                f"No checkpoint of step {runner.iter + 1} was written: {what}. {last_good(runner)} Lower "
                "default_hooks.schedule.base_lr, then continue with --resume."
            )
        runner.logger.info(f"Saving checkpoint at {runner.iter + 1} iterations")
        self._save_checkpoint(runner)
        self.waiting = False
