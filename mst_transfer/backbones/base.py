"""What both backbones share: a timm trunk, its checkpoint, padding to whole patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mst_pretrain.checkpoints.choices import MMSEG
from mst_pretrain.checkpoints.loading import load_backbone
from mst_pretrain.runtime.errors import UserError

# of a file, where the model here has fc_norm in its place
LAST_NORM = frozenset({"norm.weight", "norm.bias"})


class TrunkBackbone(BaseModule):
    """A backbone around ``self.trunk``, a timm model without classifier.

    Args:
        init_cfg: None keeps timm's initialisation; ``dict(type='Pretrained', checkpoint=FILE, prefix=...)`` loads
            every weight of the trunk from anybody's checkpoint or fails; without ``prefix`` the backbone is found.

    Attributes:
        trunk: As far as the last output needs it.
        whole: Names of timm's weights before it was cut.
        positions: The rule of resizing a ViT's learned positions.
    """

    trunk: Any
    whole: frozenset[str]
    positions: str = MMSEG
    _is_init: bool

    def init_weights(self) -> None:
        """Load the trunk. Nothing is loaded in part.

        Raises:
            UserError: The file is missing, does not fit, holds a weight that the whole model has no place for, or
                ``init_cfg`` is of another type.
        """
        if self._is_init or not self.init_cfg:
            return
        init = self.init_cfg
        if not isinstance(init, dict) or init.get("type") != "Pretrained" or "checkpoint" not in init:
            raise UserError(
                f"{type(self).__name__}: init_cfg must be None or "
                f"dict(type='Pretrained', checkpoint=FILE, prefix=...), got {init}."
            )
        path = Path(init["checkpoint"])
        if not path.exists():
            raise UserError(f"pretrained weights not found: {path}. {_remedy(path)}")
        spare = self.whole | LAST_NORM if isinstance(self.trunk.norm, nn.Identity) else self.whole
        report = load_backbone(self.trunk, path, init.get("prefix"), self.positions, spare)
        print_log(f"{type(self).__name__} from {path}: {report}", logger="current")
        self._is_init = True


def _remedy(path: Path) -> str:
    """Where a run of tools/pretrain.sh would have left the file, the command that makes it."""
    if path.name == "latest.pth" and path.parent.name:
        return f"Make them with: bash tools/pretrain.sh configs/pretrain/{path.parent.name}.py"
    return "Give init_cfg.checkpoint an existing .pth or .safetensors file; tools/pretrain.sh makes one."


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Zeros to the right and below until [B, 3, H, W] divides into patches."""
    height, width = images.shape[-2:]
    if height % multiple or width % multiple:
        images = F.pad(images, (0, -width % multiple, 0, -height % multiple))
    return images


def freeze(modules: Sequence[nn.Module]) -> None:
    """Evaluation mode and no gradients."""
    for module in modules:
        module.eval()
        module.requires_grad_(False)
