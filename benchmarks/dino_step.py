"""DINO's training step as its authors wrote it, of timm's ViT and lightly's head and loss: the peer of ours.

Two forward passes of the student, one for each size of crops, one of the teacher; weights are clipped and the teacher
moved one tensor after the other. Crops are ready on the device: DINO augments them on the CPU.
"""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss
from lightly.models.modules.heads import DINOProjectionHead
from torch import Tensor, nn

from mst_pretrain.method.proven import create_trunk

MOMENTUM, CLIP, TEMPERATURE = 0.996, 3.0, 0.04


class DINOStep:
    """Student, teacher, loss and optimizer.

    Args:
        name: timm ViT.
        prototypes: Outputs of the head.
        device: Where all is.
        dtype: Of autocast; None: float32.
    """

    def __init__(self, name: str, prototypes: int, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype
        self.student, self.teacher = (
            nn.ModuleList([trunk, DINOProjectionHead(trunk.num_features, output_dim=prototypes)]).to(device)
            for trunk in (
                create_trunk(name, dynamic_img_size=True, drop_path_rate=rate) for rate in (0.1, 0.0)
            )
        )
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.loss = DINOLoss(prototypes).to(device)
        weights = [p for p in self.student.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.04},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-5)

    def __call__(self, global_views: Tensor, local_views: Tensor) -> None:
        """One step on crops [V, B, 3, H, W] and [L, B, 3, h, w], normalised float32."""
        autocast = torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)
        with autocast:
            images = global_views.flatten(0, 1)
            with torch.no_grad():
                teacher = self.forward(self.teacher, [images]).float().chunk(len(global_views))
            student = self.forward(self.student, [images, local_views.flatten(0, 1)])
        loss = self.loss(
            list(teacher),
            list(student.float().chunk(len(global_views) + len(local_views))),
            teacher_temp=TEMPERATURE,
        )
        if not torch.isfinite(loss):
            raise RuntimeError("the loss is not finite")
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in self.student.parameters():
            if parameter.grad is not None:
                factor = CLIP / (parameter.grad.norm(2) + 1e-6)
                if factor < 1:
                    parameter.grad.mul_(factor)
        self.optimizer.step()
        with torch.no_grad():
            for moved, followed in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                moved.mul_(MOMENTUM).add_((1 - MOMENTUM) * followed)

    def forward(self, network: nn.ModuleList, sizes: list[Tensor]) -> Tensor:
        """Logits of all crops, [CLS] of each size after the other."""
        trunk, head = network
        features = [trunk.forward_features(images)[:, 0] for images in sizes]
        result: Tensor = head(torch.cat(features))
        return result
