"""Pretrained backbones in mmdet and mmseg. Importing it registers everything with MMEngine."""

from .compat import check_distributions, import_openmmlab

check_distributions()

from .ops import use_torchvision_ops  # noqa: E402

use_torchvision_ops()

from mst_pretrain import register  # noqa: E402
from mst_pretrain.checkpoints.storage import use_safe_loading  # noqa: E402
from mst_pretrain.runtime.imports import quiet_imports  # noqa: E402

with quiet_imports():
    import_openmmlab()
    from . import backbones, evaluation
    from .data import datasets
    from .prediction import predict
    from .training import layer_decay

__all__ = [
    "backbones",
    "datasets",
    "evaluation",
    "layer_decay",
    "predict",
    "register",
    "use_safe_loading",
]
