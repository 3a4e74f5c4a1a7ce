"""MST's two losses. They know no trainer, epoch or device: numbers in, tensors in, a scalar out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from ..runtime.compiling import compiled
from ..runtime.errors import InvalidValue

# Natural logarithm of the smallest target: processors compute with numbers near the smallest ones of float32 (-87) many
# times slower, and 65536 targets of e^-60 add up to 6e-22.
SMALLEST = -60.0


class SelfDistillationLoss(nn.Module):
    """DINO's cross entropy between centred, sharpened teacher and student outputs [code: DINO].

        q_v = softmax((t_v - c) / tau_t),  p_s = softmax(u_s / tau_s)
        loss = mean over pairs (v, s), v != s, of  -sum_k q_v[k] log p_s[k],  mean over images

    Student crops 0..V-1 are the teacher's own views in the same order; local crops follow.

    Args:
        prototypes: K.
        student_temperature: tau_s > 0.
        center_momentum: m of ``c <- m c + (1 - m) mean(t)``, in [0, 1].
        compile: See :class:`MST`.

    Raises:
        InvalidValue: A temperature is not positive or the momentum is out of range.
    """

    center: Tensor
    pending_sum: Tensor

    def __init__(
        self,
        prototypes: int,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        compile: str | None = None,
    ) -> None:
        super().__init__()
        if student_temperature <= 0:
            raise InvalidValue(f"student_temperature must be positive, got {student_temperature}")
        if not 0.0 <= center_momentum <= 1.0:
            raise InvalidValue(f"center_momentum must be in [0, 1], got {center_momentum}")
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.cross_entropy = compiled(_CrossEntropy.compute, compile)
        self.register_buffer("center", torch.zeros(prototypes))
        self.register_buffer("pending_sum", torch.zeros(prototypes), persistent=False)
        self.pending_count = 0  # on the host: every process has as many

    def forward(
        self, student: Tensor, teacher: Tensor, teacher_temperature: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch, and what to watch.

        Args:
            student: [S, B, K] logits of all S crops, the V global views first.
            teacher: [V, B, K] logits of the global views, no gradient.
            teacher_temperature: tau_t > 0.

        Returns:
            Scalar float32 loss, and scalars ``teacher_entropy`` (nats, 0..ln K), ``kl`` and ``center_norm``.

        Raises:
            ValueError: Shapes do not fit, or there is no pair of different crops.
        """
        crops, views = student.shape[0], teacher.shape[0]
        if student.shape[1:] != teacher.shape[1:] or crops < views or crops < 2:
            raise ValueError(
                f"expected student [S, B, K] and teacher [V, B, K] with S >= V and S >= 2, "
                f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
            )
        if teacher_temperature <= 0:
            raise ValueError(f"teacher_temperature must be positive, got {teacher_temperature}")
        with torch.autocast(student.device.type, enabled=False):
            # a tensor: each value of a number would be compiled
            temperature = self.center.new_full((), teacher_temperature)
            inputs = (student, teacher.detach(), self.center, self.student_temperature, temperature)
            loss, entropy = _CrossEntropy.apply(self.cross_entropy, *inputs)
        watched = {
            "teacher_entropy": entropy,
            "kl": loss.detach() - entropy,
            "center_norm": self.center.norm(),
        }
        return loss, watched

    @torch.no_grad()
    def collect(self, teacher: Tensor) -> None:
        """Add teacher logits [V, B, K] to what the next :meth:`update_center` averages."""
        self.pending_sum += teacher.detach().float().sum((0, 1))
        self.pending_count += teacher.shape[0] * teacher.shape[1]

    @torch.no_grad()
    def update_center(self) -> None:
        """Move the centre once, over everything collected since the last call, as much on each of the processes.

        Raises:
            RuntimeError: Nothing was collected.
        """
        if self.pending_count == 0:
            raise RuntimeError("update_center() needs collect() first")
        count = self.pending_count
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.pending_sum)
            count *= dist.get_world_size()
        batch_center = self.pending_sum / count
        self.center.mul_(self.center_momentum).add_(batch_center, alpha=1 - self.center_momentum)
        self.discard()

    @torch.no_grad()
    def discard(self) -> None:
        """Forget what was collected since the last :meth:`update_center`, for a step that is left out."""
        self.pending_sum.zero_()
        self.pending_count = 0


class _CrossEntropy(torch.autograd.Function):
    """The sum over pairs without a term for each, and its gradient in the same pass.

    With ``W_s``, the sum of the targets of all views but crop s's own, and ``n_s`` of them, a crop's terms are
    ``-sum_k W_s[k] log p_s[k]``, and the gradient at its logits is ``(n_s p_s - W_s) / tau_s``. On a CPU, images are
    gone through one by one, so that what lies between is never written to memory.
    """

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[..., tuple[Tensor, Tensor, Tensor]], student: Tensor, *others: Any
    ) -> tuple[Tensor, Tensor]:
        """Mean over pairs and images, and the targets' mean entropy; both float32."""
        loss, entropy, gradient = compute(student, *others)
        ctx.gradient, ctx.dtype = gradient, student.dtype  # the gradient is neither an input nor an output
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    def compute(
        student: Tensor,
        teacher: Tensor,
        center: Tensor,
        student_temperature: float,
        teacher_temperature: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`forward` returns, and the gradient; to be compiled, which needs no loop over the images."""
        (crops, batch, _), views = student.shape, len(teacher)
        scale = 1 / ((views * crops - views) * batch)
        # float16 would lose it: a scaled loss scales it in the backward pass alone
        gradient = torch.empty_like(student, dtype=None if student.dtype != torch.float16 else torch.float32)
        loss, entropy = center.new_zeros(()), center.new_zeros(())
        whole = student.is_cuda or torch.compiler.is_compiling()
        parts = (tensor.split(batch if whole else 1, dim=1) for tensor in (teacher, student, gradient))
        for teacher_part, student_part, place in zip(*parts, strict=True):
            log_targets = ((teacher_part.float() - center) / teacher_temperature).log_softmax(-1)
            log_targets = log_targets.clamp_(min=SMALLEST)
            targets = log_targets.exp()
            entropy -= (targets * log_targets).sum()
            summed = targets.sum(0)
            logits = student_part.float() / student_temperature
            probs = logits.softmax(-1)
            # of the largest logit of a crop: log p = logit - log_sum
            log_sums = logits.amax(-1) - probs.amax(-1).log()
            counts = log_sums.new_full((crops, 1), float(views))
            counts[:views] -= 1
            loss += (counts * log_sums).sum() + (logits[:views] * targets).sum()
            loss -= torch.bmm(
                logits.transpose(0, 1), summed.unsqueeze(2)
            ).sum()  # einsum would copy the logits
            probs *= counts.unsqueeze(-1) * (scale / student_temperature)
            probs[:views].add_(targets, alpha=scale / student_temperature)
            torch.sub(probs, summed, alpha=scale / student_temperature, out=place)
        return loss * scale, entropy / (views * batch), gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient that was made with the loss, in place: a second backward pass is not possible."""
        gradient, ctx.gradient = ctx.gradient, None
        return None, gradient.mul_(grad_loss).to(ctx.dtype), None, None, None, None


def restoration_loss(restored: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error to the augmented, normalised global view, over the whole image [summary; L1: ours].

    Args:
        restored: [B, 3, H, W].
        images: [B, 3, H, W].

    Raises:
        ValueError: Shapes differ.
    """
    if restored.shape != images.shape:
        raise ValueError(
            f"restored image {tuple(restored.shape)} and target {tuple(images.shape)} differ in shape"
        )
    with torch.autocast(restored.device.type, enabled=False):
        return (restored.float() - images.float()).abs().mean()
