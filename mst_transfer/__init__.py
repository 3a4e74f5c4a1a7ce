"""Pretrained backbones in mmdet and mmseg. Importing it registers everything with MMEngine."""

from .compat import check_distributions

check_distributions()

from .ops import use_torchvision_ops  # noqa: E402

use_torchvision_ops()

from mst_pretrain import register  # noqa: E402
from mst_pretrain.checkpoints.storage import use_safe_loading  # noqa: E402

from . import backbones, evaluation  # noqa: E402
from .data import datasets  # noqa: E402
from .prediction import predict  # noqa: E402
from .training import layer_decay  # noqa: E402

__all__ = [
    "backbones",
    "datasets",
    "evaluation",
    "layer_decay",
    "predict",
    "register",
    "use_safe_loading",
]
