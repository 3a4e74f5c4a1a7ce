"""NMS and RoIAlign on torchvision's kernels, for an mmcv that was installed without its own operators."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .torchvision_ops import nms, roi_align_backward, roi_align_forward

NAME = "mmcv._ext"


class TorchvisionOps(ModuleType):
    """Stands where mmcv's compiled extension would; operators it lacks raise when they are called."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.__spec__ = ModuleSpec(NAME, None)
        self.nms, self.roi_align_forward, self.roi_align_backward = nms, roi_align_forward, roi_align_backward

    def __getattr__(self, operator: str) -> Any:
        if operator.startswith("__"):
            raise AttributeError(operator)

        def missing(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(
                f"mmcv's operator '{operator}' is not available: this mmcv was installed without compiled operators, "
                "and only nms and roi_align have torchvision kernels here. Build mmcv from source with MMCV_WITH_OPS=1 "
                "(pip install --no-binary onedl-mmcv onedl-mmcv), or use a model without this operator."
            )

        return missing


def use_torchvision_ops() -> bool:
    """Put torchvision's kernels behind ``mmcv._ext`` when mmcv has none of its own.

    Returns:
        True when torchvision's are used; a compiled mmcv stays untouched.
    """
    if isinstance(sys.modules.get(NAME), TorchvisionOps):
        return True
    if NAME in sys.modules or find_spec(NAME) is not None:
        return False
    sys.modules[NAME] = TorchvisionOps()
    return True
