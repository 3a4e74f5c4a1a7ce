"""Is the file that was written the same network? Both are built and shown the same image."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..runtime.errors import UserError
from .backbone import Backbone
from .conversion import expressible_eps
from .huggingface_folder import has_pooler, model_class

TOLERANCE = 1e-5  # relative; float32 sums in another order differ by less


class NotVerified(UserError):
    """The library is not installed, so that nothing was compared."""


def require(library: str, to: str) -> None:
    """Raise NotVerified where the library that reads the file is not installed."""
    if importlib.util.find_spec(library) is None:
        raise NotVerified(
            f"not verified: {library} is not installed, so the written file was compared with nothing. It stays; "
            f"install {library} and convert again with --verify to compare features ({to})."
        )


def set_norm_eps(model: nn.Module, eps: float) -> nn.Module:
    """Another epsilon for every LayerNorm."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    return model


def trunk_of(backbone: Backbone, **arguments: Any) -> Any:
    """timm's model with the weights that were read and the source's epsilon, in evaluation mode."""
    architecture = backbone.architecture
    trunk = timm.create_model(
        architecture.name, num_classes=0, **{**architecture.arguments, **arguments}
    ).eval()
    trunk.load_state_dict(backbone.state, strict=not backbone.missing)
    return set_norm_eps(trunk, backbone.norm_eps)


def image_for(backbone: Backbone, size: tuple[int, int] | None = None) -> Tensor:
    """One image [1, 3, H, W] of noise, at the size that the model was built for unless given."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, *(size or backbone.architecture.image_size), generator=generator)


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value; another shape is a UserError."""
    if found.shape != expected.shape:
        raise UserError(f"features have shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def timm_deviation(backbone: Backbone, path: Path) -> float:
    """Between timm's model of the weights read and ``timm.create_model(..., checkpoint_path=path)``, of one epsilon."""
    architecture, images = backbone.architecture, image_for(backbone)
    written: Any = timm.create_model(
        architecture.name, num_classes=0, checkpoint_path=str(path), **architecture.arguments
    )
    set_norm_eps(written.eval(), backbone.norm_eps)
    return deviation(written.forward_features(images), trunk_of(backbone).forward_features(images))


@torch.no_grad()
def huggingface_deviation(backbone: Backbone, path: Path) -> float:
    """Between timm's model of the weights read and transformers' model of the folder, of one epsilon."""
    require("transformers", "huggingface")
    import transformers

    kind: Any = getattr(transformers, model_class(backbone.architecture)[0])
    options = {"add_pooling_layer": False} if has_pooler(backbone.architecture) else {}
    written: Any = kind.from_pretrained(path, **options).eval()
    images = image_for(backbone)
    trunk: Any = set_norm_eps(trunk_of(backbone), expressible_eps(backbone))
    expected = trunk.forward_features(images)
    tokens = expected.flatten(1, 2) if backbone.architecture.is_swin else expected
    return deviation(written(images).last_hidden_state, tokens)
