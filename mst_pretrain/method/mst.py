"""MST: Masked Self-supervised Transformer (Li et al., NeurIPS 2021, arXiv 2106.05656). Read this first.

A student and a teacher of one architecture see crops of an image. The teacher sees the global views whole; the
tokens its last block attends to least are hidden from the student; the student matches the teacher's output
(self-distillation) while a CNN decoder restores the whole image from the student's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.choices import TIMM
from ..checkpoints.loading import load_backbone
from ..data.photometric import MultiCropPreprocessor
from ..runtime.compiling import compiled
from ..runtime.errors import InvalidValue, UserError
from .backbones import Features, build_trunk, choose_attention, forward_trunk, output_stride, residual_block
from .decoder import ImageDecoder
from .head import ProjectionHead
from .losses import SelfDistillationLoss, restoration_loss
from .masking import make_mask


class Network(nn.Module):
    """One of the two networks: a timm trunk and a projection head."""

    def __init__(self, backbone: dict[str, Any], head: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = build_trunk(**backbone)
        self.head = ProjectionHead(self.backbone.num_features, **head)


@MODELS.register_module()
class MST(BaseModel):
    """The method.

    Args:
        backbone: ``name`` of a timm model and its arguments; ``drop_path_rate`` acts in the student only.
        head: Arguments of :class:`ProjectionHead`.
        masking: ``mode`` and the arguments of :func:`make_mask`.
        mask_local: Hide tokens of the local crops too, by the teacher's attention on them; off [ours].
        decoder: Arguments of :class:`ImageDecoder`; None trains without restoration.
        distillation: Arguments of :class:`SelfDistillationLoss` beside the number of prototypes.
        lambda_ce: Weight of the self-distillation loss.
        lambda_rec: Weight of the restoration loss.
        gradient_checkpointing: Compute the student's activations again in the backward pass: less memory, more time.
        compile: Backend of ``torch.compile``, e.g. ``inductor``, for the blocks of both trunks (one graph for all
            blocks of a shape), the self-distillation loss, and the colour jitter on a GPU; None runs them as they are.
        init_from: Anybody's checkpoint whose backbone both networks start from; heads, mask token and decoder are
            new. None starts from random weights.
        data_preprocessor: MMEngine config; moves crops to the device and augments their colours.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        head: dict[str, Any] | None = None,
        masking: dict[str, Any] | None = None,
        mask_local: bool = False,
        decoder: dict[str, Any] | None = None,
        distillation: dict[str, Any] | None = None,
        lambda_ce: float = 1.0,
        lambda_rec: float = 1.0,
        gradient_checkpointing: bool = False,
        compile: str | None = None,
        init_from: str | None = None,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        head = dict(head or {})
        self.student = Network(backbone, head)
        self.teacher = Network({**backbone, "drop_path_rate": 0.0}, head)
        if init_from is not None:
            trunk = self.student.backbone
            report = load_backbone(trunk, init_from, positions=getattr(trunk, "positions", TIMM))
            print_log(
                f"Backbone from {init_from}: {report}. Student and teacher start equal; projection head, mask token "
                "and decoder are new.",
                "current",
            )
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.distillation = SelfDistillationLoss(
            head.get("prototypes", 65536), **(distillation or {}), compile=compile
        )
        self.masking, self.mask_local = {"mode": "none", **(masking or {})}, mask_local
        # what is wrong with the masking must not wait for the first step
        make_mask(attention=torch.zeros(1, 1, 1), seeds=torch.zeros(1, dtype=torch.int64), **self.masking)
        self.lambda_ce, self.lambda_rec = lambda_ce, lambda_rec
        self.teacher_temperature = 0.04  # the schedule hook sets it at every iteration
        self.teacher_pooled: Tensor | None = None  # [B, D] of the last forward of the teacher
        trunk = self.student.backbone
        trunk.set_grad_checkpointing(gradient_checkpointing)
        self.forward_trunk = forward_trunk
        if compile:
            self.forward_trunk = partial(forward_trunk, compiled_block=compiled(residual_block, compile))
            if isinstance(self.data_preprocessor, MultiCropPreprocessor):
                self.data_preprocessor.compile_jitter(compile)
        masks = self.masking["mode"] != "none"
        self.mask_token = nn.Parameter(torch.zeros(trunk.patch_embed.proj.out_channels)) if masks else None
        stride = output_stride(trunk)
        self.decoder = None if decoder is None else ImageDecoder(trunk.num_features, stride, **decoder)
        if min(lambda_ce, lambda_rec) < 0:
            raise InvalidValue(
                f"lambda_ce and lambda_rec must not be negative, got {lambda_ce} and {lambda_rec}"
            )
        if lambda_ce == 0 and (self.decoder is None or lambda_rec == 0):
            other = "model.decoder is None" if self.decoder is None else "model.lambda_rec is 0"
            raise UserError(f"model.lambda_ce is 0 and {other}: nothing is left to train. Set one.")

    @property
    def crop_units(self) -> tuple[int, int]:
        """Pixels that must divide the sides of a global and of a local crop: a token, or a patch where that will do."""
        trunk, masks = self.student.backbone, self.mask_token is not None
        patch, stride = trunk.patch_embed.patch_size[0], output_stride(trunk)
        return (
            stride if masks or self.decoder is not None else patch,
            stride if masks and self.mask_local else patch,
        )

    def forward(
        self, global_views: Tensor, local_views: Tensor, seeds: Tensor, mode: str = "loss"
    ) -> dict[str, Tensor]:
        """MMEngine's entry: ``mode='loss'`` only; use the exported backbone for features."""
        if mode != "loss":
            raise ValueError(f"MST.forward knows mode='loss' only, got '{mode}'")
        choose_attention(self, global_views.device)
        return self.loss(global_views, local_views, seeds)

    def loss(self, global_views: Tensor, local_views: Tensor, seeds: Tensor) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            global_views: [V, B, 3, H, W] float32, normalised.
            local_views: [L, B, 3, h, w] float32, normalised; L may be 0.
            seeds: [B] int64, one per image; they decide the Bernoulli draws of the masks.

        Returns:
            Named scalars; those with ``loss`` in the name are summed for the backward pass.
        """
        images = global_views.flatten(0, 1)
        teacher_logits, attention = self.forward_teacher(images)
        mask = make_mask(attention=attention, seeds=_view_seeds(seeds, len(global_views)), **self.masking)

        features = self.forward_trunk(self.student.backbone, images, mask, self.mask_token)
        pooled = [features.pooled]
        if len(local_views):
            pooled.append(self.forward_local(local_views, seeds))
        student_logits = self.student.head(torch.cat(pooled))

        batch = global_views.shape[1]
        student_logits = student_logits.unflatten(0, (-1, batch))
        teacher_logits = teacher_logits.unflatten(0, (-1, batch))
        ce, watched = self.distillation(student_logits, teacher_logits, self.teacher_temperature)
        self.distillation.collect(teacher_logits)
        losses = {"loss_ce": self.lambda_ce * ce}
        if self.decoder is not None:
            losses["loss_rec"] = self.lambda_rec * restoration_loss(self.decoder(features.grid), images)
        return losses | watched | _mask_statistics(features, attention, mask)

    def forward_local(self, local_views: Tensor, seeds: Tensor) -> Tensor:
        """The student's pooled features [L * B, D] of the local views; hidden tokens only with ``mask_local``."""
        images, mask = local_views.flatten(0, 1), None
        if self.mask_local:
            attention = self.teacher_features(images).attention
            assert attention is not None
            # other seeds than the global views'
            mask = make_mask(attention=attention, seeds=_view_seeds(~seeds, len(local_views)), **self.masking)
        return self.forward_trunk(self.student.backbone, images, mask, self.mask_token).pooled

    @torch.no_grad()
    def forward_teacher(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's view: logits [B, K] and attention map [B, h, w]."""
        features = self.teacher_features(images)
        self.teacher_pooled = features.pooled  # for who watches the run
        with _own_autocast(images.device.type):
            logits = self.teacher.head(features.pooled, full_precision=True)
        assert features.attention is not None
        return logits, features.attention

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> Features:
        """The teacher's trunk with attention, in an autocast region of its own."""
        with _own_autocast(images.device.type):
            return self.forward_trunk(self.teacher.backbone, images, with_attention=True)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """``teacher <- m teacher + (1 - m) student``, buffers copied; then the centre moves. Once per step."""
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.student.parameters())
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, student, alpha=1 - momentum)
        if buffers := list(self.teacher.buffers()):
            torch._foreach_copy_(buffers, list(self.student.buffers()))
        self.distillation.update_center()

    @torch.no_grad()
    def restore(self, images: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """For pictures: attention [B, h, w], mask [B, h, w] or None, restored images [B, 3, H, W] or None."""
        _, attention = self.forward_teacher(images)
        mask = make_mask(attention=attention, seeds=seeds, **self.masking)
        features = self.forward_trunk(self.student.backbone, images, mask, self.mask_token)
        return attention, mask, None if self.decoder is None else self.decoder(features.grid)


def _view_seeds(seeds: Tensor, views: int) -> Tensor:
    """[B] image seeds to [V * B] view seeds, view after view."""
    return torch.cat([seeds * views + view for view in range(views)])


@torch.no_grad()
def _mask_statistics(features: Features, attention: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """What health looks like: spread of the features, hidden tokens per view, attention on them."""
    directions = nn.functional.normalize(features.pooled.detach().float(), dim=-1)
    statistics = {"feature_std": directions.std(0).mean()}
    if mask is not None:
        hidden = mask.sum()
        statistics["masked_tokens"] = hidden / len(mask)
        statistics["attention_masked"] = (attention * mask).sum() / hidden.clamp(min=1)
        statistics["attention_visible"] = (attention * ~mask).sum() / (~mask).sum().clamp(min=1)
    return statistics


@contextmanager
def _own_autocast(device_type: str) -> Iterator[None]:
    """Autocast as outside, but weights cast here are not cached for the student, whose gradients they would cut."""
    enabled = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type)
    with torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=False):
        yield
