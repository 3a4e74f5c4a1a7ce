"""The backbone that an evaluation reads: which weights of a file, which model they belong to, loaded whole."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from ..backbones import Trunk, build_trunk
from ..checkpoint_io import (
    backbone_prefix,
    load_backbone,
    load_checkpoint,
    load_state_dict,
    refuse_leftovers,
)
from ..errors import UserError
from .ranks import speaks

DEFAULT_MODEL = "vit_small_patch16_224"
RANDOM = "none"
# (width, depth): every timm ViT of these has 64 channels per head.
VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large"}
SWINS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "tiny",
    (96, (2, 2, 18, 2)): "small",
    (128, (2, 2, 18, 2)): "base",
    (192, (2, 2, 18, 2)): "large",
}
SWIN_TABLE = (7 + 7 - 1) ** 2


@dataclass
class Origin:
    """Where an evaluated backbone came from; part of every result.

    Attributes:
        model: timm name.
        model_args: Its arguments.
        checkpoint: Path, or ``none`` for random weights.
        sha256: Of the file, or None.
        prefix: What stood before the backbone's keys, or None.
        init_seed: Of the random weights; None when they came from a file.
    """

    model: str
    model_args: dict[str, Any]
    checkpoint: str
    sha256: str | None
    prefix: str | None
    init_seed: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def load_trunk(
    checkpoint: str | None,
    prefix: str | None = None,
    model: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[Trunk, Origin]:
    """A trunk in evaluation mode with every weight of a checkpoint, or with random weights.

    Args:
        checkpoint: Ours or timm's file; None or ``none`` for random weights.
        prefix: Part of the file's keys before timm's; None finds it.
        model: timm name; None takes the file's.
        model_args: timm arguments that differ from the file's (or from the named model's).
        seed: Of random weights.

    Raises:
        UserError: The file cannot be read, is of another kind, or does not fit the model whole.
    """
    given = dict(model_args or {})
    if checkpoint is None or checkpoint == RANDOM:
        if speaks():
            print(f"random weights, seed {seed}: a control, no pretrained backbone", file=sys.stderr)
        torch.manual_seed(seed)
        name = model or DEFAULT_MODEL
        return _build(name, given).eval(), Origin(name, given, RANDOM, None, None, seed)
    loaded = load_checkpoint(checkpoint)
    whole = load_state_dict(checkpoint)
    if prefix is None:
        prefix = backbone_prefix(checkpoint)
    own_args: dict[str, Any] = {}
    if model is None:
        weights = {key[len(prefix) :]: value for key, value in whole.items() if key.startswith(prefix)}
        model, own_args = guess_model(loaded.get("meta"), weights, checkpoint)
    arguments = {**own_args, **given}
    trunk = _build(model, arguments)
    report = load_backbone(trunk, checkpoint, prefix)
    refuse_leftovers(report, checkpoint, "Give the --model and --model-args it was trained with.")
    if speaks():
        print(f"{checkpoint}, {prefix or 'no prefix'}, {model}: {report}", file=sys.stderr)
    return trunk.eval(), Origin(model, arguments, str(checkpoint), file_sha256(checkpoint), prefix, None)


def _build(model: str, arguments: dict[str, Any]) -> Trunk:
    """The trunk without drop path.

    Raises:
        UserError: timm does not know the name or refuses the arguments.
    """
    try:
        return build_trunk(model, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{model} cannot be built with --model-args {arguments}: {reason}. Correct them."
        ) from error


def guess_model(meta: Any, weights: Mapping[str, Tensor], path: str | Path) -> tuple[str, dict[str, Any]]:
    """timm name and arguments: from the config inside our checkpoint, else from shapes of a standard ViT or Swin.

    Args:
        meta: The checkpoint's ``meta``, whose ``cfg`` is the text of the run's config.
        weights: Of the backbone, with timm's keys.
        path: For the message.

    Raises:
        UserError: Shapes do not tell, e.g. the number of heads of a ViT of unusual width.
    """
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    backbone = _backbone_of_config(text) if isinstance(text, str) else None
    if backbone is not None:
        return backbone.pop("name"), {k: v for k, v in backbone.items() if k != "drop_path_rate"}
    patch = weights.get("patch_embed.proj.weight")
    if patch is not None and "pos_embed" in weights and "cls_token" in weights:
        depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
        size, side = VITS.get((patch.shape[0], depth)), _grid_side(weights["pos_embed"])
        name = f"vit_{size}_patch{patch.shape[2]}_224"
        if side and size and timm.is_model(name):
            pixels = side * patch.shape[2]
            return name, {} if pixels == 224 else {"img_size": pixels}
        if side and size:
            return f"vit_{size}_patch16_224", {
                "patch_size": patch.shape[2],
                "img_size": side * patch.shape[2],
            }
    if patch is not None and "layers.0.blocks.0.attn.relative_position_bias_table" in weights:
        stages = [re.match(r"layers\.(\d+)\.blocks\.(\d+)\.norm1\.weight", key) for key in weights]
        blocks = [int(found[1]) for found in stages if found]
        swin = SWINS.get((patch.shape[0], tuple(blocks.count(stage) for stage in range(4))))
        table = weights["layers.0.blocks.0.attn.relative_position_bias_table"]
        if swin and table.shape[0] == SWIN_TABLE and patch.shape[2] == 4:
            return f"swin_{swin}_patch4_window7_224", {}
    raise UserError(
        f"{path} does not say which model it is, and its shapes leave it open (a ViT's number of heads is in no "
        "shape). Give --model and --model-args, e.g. --model vit_tiny_patch16_224 --model-args "
        """'{"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}'."""
    )


def _grid_side(pos_embed: Tensor) -> int | None:
    """Side of a square grid in a position embedding [1, 1 + side^2, D]."""
    side = round((pos_embed.shape[1] - 1) ** 0.5)
    return side if side * side == pos_embed.shape[1] - 1 else None


def _backbone_of_config(text: str) -> dict[str, Any] | None:
    """``model.backbone`` of a config's text, read as literals: nothing of the file is executed."""
    try:
        for statement in ast.parse(text).body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if isinstance(statement, ast.Assign) and isinstance(target, ast.Name) and target.id == "model":
                backbone = _literal(statement.value).get("backbone")
                return backbone if isinstance(backbone, dict) and "name" in backbone else None
    except (SyntaxError, ValueError, AttributeError):
        return None
    return None


def _literal(node: ast.expr) -> Any:
    """The value of nested ``dict(...)``, lists, tuples and constants.

    Raises:
        ValueError: Anything else.
    """
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "dict"
        and not node.args
    ):
        return {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    return ast.literal_eval(node)


def file_sha256(path: str | Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
