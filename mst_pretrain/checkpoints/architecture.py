"""Which model a backbone's weights belong to: from what the checkpoint says of itself, or from their shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from ..method.proven import refuse_unproven
from ..runtime.errors import UserError
from ..runtime.json_text import parse_json
from ..runtime.terminal import shown
from .kinds import other_vit
from .vit_families import SIZES, by_shape, kind_of_model

Shapes: TypeAlias = dict[str, tuple[int, ...]]
SWINS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "tiny",
    (96, (2, 2, 18, 2)): "small",
    (128, (2, 2, 18, 2)): "base",
    (192, (2, 2, 18, 2)): "large",
}
# Of transformers: what our networks have, and the model types whose shapes tell all but the heads
HF_WANTED: dict[str, Any] = {
    "hidden_act": "gelu",
    "qkv_bias": True,
    "use_absolute_embeddings": False,
    "use_swiglu_ffn": False,
    "use_gated_mlp": False,
    "key_bias": False,
    "rope_theta": 100.0,
}
BY_SHAPE = ("deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
FETCHING = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
}  # timm's
DEEPEST, LARGEST = 1000, 1_000_000  # blocks of a network, and any other number of an architecture
GIVE_IT = (
    "Give --model and --model-args, e.g. --model vit_tiny_patch16_224 --model-args "
    """'{"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}'."""
)


@dataclass(frozen=True)
class Architecture:
    """A timm model by name and arguments.

    Attributes:
        name: timm name.
        arguments: What differs from the named model's.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name + (f" with {json.dumps(self.arguments)}" if self.arguments else "")

    @cached_property
    def model(self) -> Any:
        """The model without classifier and without memory for its weights.

        Raises:
            UserError: timm does not know the name or refuses the arguments, or :func:`refuse_unproven`.
        """
        if not _harmless(self.arguments):
            raise UserError(
                f"{self.name} is not built with {shown(json.dumps(self.arguments))[:200]}: no network has more than "
                f"{DEEPEST} blocks or such numbers, and none that is to be loaded fetches another. Correct them, or "
                "copy the checkpoint again."
            )
        try:
            with torch.device("meta"):
                model = timm.create_model(self.name, num_classes=0, **self.arguments)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            reason = str(error) or type(error).__name__
            raise UserError(
                f"{self.name} cannot be built with --model-args {json.dumps(self.arguments)}: {reason}. Correct them."
            ) from error
        refuse_unproven(model, self.name)
        return model

    @property
    def kind(self) -> str:
        """Its family, e.g. ``DINOv2``; see :func:`kind_of_model`."""
        return kind_of_model(self.model)

    @property
    def is_swin(self) -> bool:
        """A Swin, or else a ViT."""
        return isinstance(self.model, SwinTransformer)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches at the size it was built for."""
        return tuple(self.model.patch_embed.grid_size)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that it was built for."""
        return tuple(self.model.patch_embed.img_size)

    @property
    def patch_size(self) -> int:
        """Pixels per side of a patch."""
        return self.model.patch_embed.patch_size[0]

    @property
    def norm_eps(self) -> float:
        """Epsilon of its LayerNorms."""
        return self.model.norm.eps

    @property
    def window(self) -> int:
        """Side of a Swin's window."""
        return window_side(self.model.layers[0].blocks[0].attn.relative_position_bias_table)

    def shapes(self) -> Shapes:
        """Of every weight, by timm's names."""
        return shapes_of(self.model)

    def changed(self, **arguments: Any) -> Architecture:
        """The same with other arguments."""
        return Architecture(self.name, {**self.arguments, **arguments})


def architecture_of(
    meta: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    path: str | Path,
    config: Mapping[str, Any] | None = None,
    model: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    heads: int | None = None,
) -> Architecture:
    """The model of a backbone: as given, as the file says, or by its shapes.

    Args:
        meta: The checkpoint's ``meta``; that of our own files has ``architecture`` and ``model_args``.
        weights: Of the backbone, with timm's keys.
        path: For the message.
        config: Hugging Face's ``config.json``.
        model: timm name; None takes the file's.
        model_args: Arguments that differ from the file's (or from the named model's).
        heads: Of a ViT's attention, where the file's format says.

    Raises:
        UserError: Shapes do not tell, e.g. the number of heads of a ViT of unusual width.
    """
    given = dict(model_args or {})
    told = _of_huggingface(config, path) if config is not None else None  # also refuses another network
    heads = told_heads(meta, config) if config is not None else heads
    if model is not None:
        if not timm.is_model(model):
            raise UserError(f"timm has no model '{model}'. See timm.list_models('*{model[:4]}*').")
        return Architecture(model, given)
    found = told or _of_meta(meta)
    if found is None and (named := by_shape(weights, heads)):
        found = Architecture(*named)
    if found is None and (other := other_vit({name: tuple(value.shape) for name, value in weights.items()})):
        raise UserError(
            f"{path} holds a ViT with {other}, which is not read as a plain one and not converted. Configs and "
            "evaluations read some of these under timm's name of the model, e.g. vit_small_patch14_reg4_dinov2."
        )
    found = found or _vit_by_shape(weights, heads) or _swin_by_shape(weights)
    if found is None:
        raise UserError(
            f"{path} does not say which model it is, and its shapes leave it open (a ViT's number of heads is in no "
            f"shape; another depth than the published ones may be a file that was cut). {GIVE_IT}"
        )
    return found.changed(**given)


def vit(
    width: int,
    depth: int,
    heads: int | None,
    patch: int,
    image: int | tuple[int, int],
    mlp_ratio: float = 4.0,
) -> Architecture | None:
    """A ViT under its standard name where it has one; None where the number of heads is needed and not known."""
    # every timm ViT of these has 64 channels per head
    size = SIZES.get((width, depth)) if heads in (None, width // 64) and mlp_ratio == 4 else None
    pixels = image if isinstance(image, int) or image[0] != image[1] else image[0]
    if size is not None:
        name, arguments = f"vit_{size}_patch{patch}_224", {} if pixels == 224 else {"img_size": pixels}
        if timm.is_model(name):
            return Architecture(name, arguments)
        return Architecture(f"vit_{size}_patch16_224", {"patch_size": patch, "img_size": pixels})
    if heads is None:
        return None
    shape = dict(patch_size=patch, img_size=pixels, embed_dim=width, depth=depth, num_heads=heads)
    return Architecture("vit_small_patch16_224", shape | ({} if mlp_ratio == 4 else {"mlp_ratio": mlp_ratio}))


def swin(
    width: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, patch: int
) -> Architecture:
    """A Swin under its standard name where it has one."""
    size = SWINS.get((width, depths)) if heads == tuple(width // 32 * 2**i for i in range(4)) else None
    if size is not None and patch == 4:
        name = f"swin_{size}_patch4_window{window}_{224 if window == 7 else 384}"
        if timm.is_model(name):
            return Architecture(name)
        return Architecture(f"swin_{size}_patch4_window7_224", {"window_size": window})
    shape = dict(embed_dim=width, depths=list(depths), num_heads=list(heads))
    other = ({"window_size": window} if window != 7 else {}) | ({"patch_size": patch} if patch != 4 else {})
    return Architecture("swin_tiny_patch4_window7_224", shape | other)


def _of_meta(meta: Mapping[str, Any]) -> Architecture | None:
    """What one of our own files says."""
    name = meta.get("architecture")
    try:
        arguments = parse_json(meta.get("model_args") or "{}")
    except (TypeError, ValueError):
        return None
    if isinstance(name, str) and timm.is_model(name) and isinstance(arguments, dict):
        return Architecture(name, arguments)
    return None


def _harmless(arguments: Mapping[str, Any]) -> bool:
    """Whether arguments shape a network of a size that exists, and make timm fetch or open nothing."""
    for name, value in arguments.items():
        limit = DEEPEST if name in ("depth", "depths") else LARGEST
        values = value if isinstance(value, list | tuple) else [value]
        if name in FETCHING or any(isinstance(one, int | float) and abs(one) > limit for one in values):
            return False
    return True


def _of_huggingface(config: Mapping[str, Any], path: str | Path) -> Architecture | None:
    """What ``config.json`` of a ViT or Swin says, or a refusal where it is of another network.

    None of a network whose weights tell the rest.
    """
    kind = config.get("model_type")
    wrong = {key: config[key] for key, value in HF_WANTED.items() if config.get(key, value) != value}
    if kind not in ("vit", "vit_mae", "swin", *BY_SHAPE) or wrong:
        raise UserError(
            f"{path}: its config.json is of model_type '{kind}' {wrong or ''}. Read are "
            f"{', '.join(('vit', 'vit_mae', 'swin', *BY_SHAPE))} with GELU, without gates, with biases of query and "
            "value, and a Swin without absolute positions. Give one of these, or its weights in timm's format."
        )
    if kind in BY_SHAPE:
        return None
    said = config.get
    try:
        if kind in ("vit", "vit_mae"):
            width, image = said("hidden_size", 768), said("image_size", 224)
            return vit(
                width,
                said("num_hidden_layers", 12),
                said("num_attention_heads", 12),
                said("patch_size", 16),
                image if isinstance(image, int) else (image[0], image[1]),
                said("intermediate_size", 3072) / width,
            )
        depths, heads = said("depths", (2, 2, 6, 2)), said("num_heads", (3, 6, 12, 24))
        sizes = said("window_size", 7), said("patch_size", 4)
        return swin(said("embed_dim", 96), tuple(depths), tuple(heads), *sizes)
    except (TypeError, ValueError, IndexError, KeyError, ArithmeticError) as error:
        raise UserError(
            f"{path}: its config.json makes no sense ({error!r}). Copy the folder again."
        ) from error


def told_heads(meta: Mapping[str, Any], config: Mapping[str, Any] | None) -> int | None:
    """Heads of a ViT as our own file or ``config.json`` says, or None."""
    if config is not None:
        said = config.get("num_attention_heads", 6 if config.get("model_type") == "dinov3_vit" else 12)
        return said if isinstance(said, int) else None
    told = _of_meta(meta)
    return None if told is None or told.is_swin else told.model.blocks[0].attn.num_heads


def _vit_by_shape(weights: Mapping[str, Tensor], heads: int | None) -> Architecture | None:
    """A standard ViT of a square grid with a [CLS] position (ViTDet keeps the position alone)."""
    patch, positions = weights.get("patch_embed.proj.weight"), weights.get("pos_embed")
    if patch is None or positions is None or patch.ndim != 4 or positions.ndim != 3:
        return None
    depth = 1 + max((int(key.split(".")[1]) for key in weights if key.startswith("blocks.")), default=-1)
    side = round((positions.shape[1] - 1) ** 0.5)
    if side * side != positions.shape[1] - 1:
        return None
    return vit(patch.shape[0], depth, heads, patch.shape[2], side * patch.shape[2])


def _swin_by_shape(weights: Mapping[str, Tensor]) -> Architecture | None:
    """A Swin: width, depths, heads and window are all in its shapes.

    Blocks come in pairs, and a published width has a published depth: another one may have been cut.
    """
    patch = weights.get("patch_embed.proj.weight")
    blocks: dict[int, int] = {}
    heads: dict[int, int] = {}
    windows: dict[int, int] = {}
    for key, value in weights.items():
        if found := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key):
            stage = int(found[1])
            blocks[stage] = max(blocks.get(stage, 0), int(found[2]) + 1)
            if key.endswith("relative_position_bias_table") and value.ndim == 2:
                heads[stage] = value.shape[1]
                windows[stage] = window_side(value)
    if patch is None or patch.ndim != 4 or not heads or set(heads) != set(range(len(blocks))):
        return None
    depths, width = tuple(blocks[stage] for stage in sorted(blocks)), patch.shape[0]
    if any(depth % 2 for depth in depths) or (
        width in {known for known, _ in SWINS} and (width, depths) not in SWINS
    ):
        return None
    window, side = max(windows.values()), patch.shape[2] * 2 ** (len(depths) - 1)
    built = swin(width, depths, tuple(heads[s] for s in sorted(heads)), window, patch.shape[2])
    # where a map is smaller than the window, the window shrinks: the tables tell the image size
    for pixels in (None, 224, 256, 384, 448, 512, side * window):
        sized = built if pixels is None else built.changed(img_size=pixels)
        stages = sized.model.layers
        tables = [stage.blocks[0].attn.relative_position_bias_table for stage in stages]
        if all(window_side(table) == windows[index] for index, table in enumerate(tables)):
            return sized
    return None


def window_side(table: Tensor) -> int:
    """Side of a Swin's window, from its bias table [(2 side - 1) squared, heads]."""
    return (round(table.shape[0] ** 0.5) + 1) // 2


def shapes_of(module: nn.Module) -> Shapes:
    """Shapes of a module's weights by their names."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}
