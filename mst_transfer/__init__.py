"""Pretrained backbones in mmdet and mmseg. Importing it registers everything with MMEngine."""

from .compat import check_distributions, load_without_code, silence_onedl

check_distributions()
silence_onedl()
load_without_code()

from .ops import use_torchvision_ops  # noqa: E402

use_torchvision_ops()

from . import backbones, evaluation  # noqa: E402
from .data import datasets  # noqa: E402
from .prediction import predict  # noqa: E402
from .training import layer_decay  # noqa: E402

__all__ = ["backbones", "datasets", "evaluation", "layer_decay", "predict"]
