"""MST's trunks as MM backbones, in MMEngine's root registry: mmdet and mmseg both find them."""

from .swin import MSTSwin
from .vit import MSTVisionTransformer

__all__ = ["MSTSwin", "MSTVisionTransformer"]
