"""Weights into models: every one, or an error that says which are missing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..data.files import first_of
from ..method.vit_tokens import resize_positions
from ..runtime.distributed import rank
from ..runtime.errors import UserError
from .architecture import shapes_of
from .backbone import Backbone, find_backbone
from .choices import TIMM
from .formats import WRAPPER
from .kinds import CONVERT
from .storage import WRAPPED, refuse_broken, refuse_odd
from .timm_keys import anchors

POSITIONS = "pos_embed"


def load_backbone(
    module: nn.Module,
    source: str | Path,
    prefix: str | None = None,
    positions: str = TIMM,
    spare: Collection[str] = (),
) -> str:
    """Load every weight of ``module`` from anybody's checkpoint, or fail and leave it unchanged.

    A position embedding of another grid is resized in float32 to the module's explicit (height, width). The module
    keeps its own norm epsilon, which its config decides.

    Args:
        module: timm's trunk, whole or without its end.
        source: File, or Hugging Face folder.
        prefix: Exactly what stands before the backbone's keys, e.g. ``teacher.backbone.``; None finds it.
        positions: The module's rule of resizing learned positions; a file that names its rule must name this one.
        spare: Names that the module would have as a whole, and that may be left out.

    Returns:
        One line for the log: how many keys matched, what was resized and what was not used.

    Raises:
        UserError: See :meth:`Backbone.fit`.
    """
    backbone, expected = find_backbone(source, prefix=prefix), shapes_of(module)
    learned = backbone.state.get(POSITIONS)
    if learned is not None and POSITIONS in expected:
        _refuse_other_rule(backbone, positions)
    if learned is not None and POSITIONS in expected and learned.shape != expected[POSITIONS]:
        resized = _resized_positions(module, learned, positions)
        if resized is not None:
            backbone.note_resized(POSITIONS, resized)
    backbone.fit(expected, "this backbone", spare)
    heads = _heads(module)
    if None not in (heads, backbone.said_heads) and heads != backbone.said_heads:
        raise UserError(
            f"{source} is of a ViT with {backbone.said_heads} heads of attention, and this one has {heads}: every "
            "weight would match and the features would be others. Nothing was loaded. Set in the config's backbone "
            f"model_args=dict(num_heads={backbone.said_heads})."
        )
    module.load_state_dict(backbone.state)
    notes = [f"resized: {', '.join(backbone.resized)}"] if backbone.resized else []
    if prefix is None and backbone.reading.role:
        notes.append(f"the {backbone.reading.role}, below '{backbone.reading.prefix}'")
    notes += [f"not used: {first_of(sorted(backbone.left))}"] if backbone.left else []
    eps = next((part.eps for part in module.modules() if isinstance(part, nn.LayerNorm)), None)
    said = backbone.said_norm_eps
    notes += (
        [f"norm epsilon {eps:g}, {said:g} in the source"] if None not in (eps, said) and eps != said else []
    )
    return f"all {len(expected)} keys matched" + (f" ({'; '.join(notes)})" if notes else "")


def load_model(
    model: nn.Module, checkpoint: Mapping[str, Any], path: str | Path, strict: bool = True
) -> None:
    """Load a whole model, detector or segmentor, from a checkpoint of its training, read from ``path``.

    Args:
        strict: Whether every weight must have a source and every source a weight.

    Raises:
        UserError: The weights are not this model's.
    """
    own = model.state_dict().keys()
    state = _unwrapped(checkpoint.get("state_dict", checkpoint), own, path)
    odd = {key: type(state[key]).__name__ for key in own if not isinstance(state.get(key, Tensor()), Tensor)}
    refuse_odd(path, odd)
    try:
        report = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a weight of another shape
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{path} is not a checkpoint of this config's model: {first} Use the config it was trained with."
        ) from error
    rest = {name for name in own if not name.startswith("backbone.")}
    if strict and rest and rest.isdisjoint(state) and anchors(list(state)):
        raise UserError(
            f"{path} is a backbone alone, without the rest of this config's model. Train with it: --init-from "
            "(pretraining) or --init or model.backbone.init_cfg (fine-tuning); then give what that training wrote."
        )
    if strict and (report.missing_keys or report.unexpected_keys):
        raise UserError(
            f"{path} is not a checkpoint of this config's model: {len(report.missing_keys)} weights missing "
            f"(first: {report.missing_keys[:2]}), {len(report.unexpected_keys)} unknown "
            f"(first: {report.unexpected_keys[:2]}). Use the config it was trained with."
        )
    refuse_broken(path, model.state_dict())


def _unwrapped(state: Mapping[str, Any], own: Set[str], path: str | Path) -> Mapping[str, Any]:
    """Weights under the model's own names, where a wrapper's stands before every one of them."""
    bare = {WRAPPED.sub("", str(key)).removeprefix(f"{WRAPPER}."): value for key, value in state.items()}
    if not own or own & state.keys() or not own <= bare.keys():
        return state
    if rank() == 0:
        first = next(iter(state))
        print(
            f"note: {path}: the names of all weights begin with a wrapper's ({first}); it is left out",
            flush=True,
        )
    return bare


def _heads(module: Any) -> int | None:
    """Heads of a ViT's attention."""
    blocks = getattr(module, "blocks", None)
    return int(blocks[0].attn.num_heads) if blocks else None


def _refuse_other_rule(backbone: Backbone, rule: str) -> None:
    """Raise a UserError where the file names another rule of resizing positions than the module's."""
    said = backbone.positions
    if said not in (None, rule):
        raise UserError(
            f"{backbone.file.path} says that its positions are resized by the rule '{said}', and this backbone resizes "
            f"them by '{rule}': away from their own size the features would differ. Nothing was loaded. Set "
            f"positions='{said}' in the config's backbone, or write the file for this one: {CONVERT} --positions {rule}"
        )


def _resized_positions(module: Any, positions: Tensor, rule: str) -> Tensor | None:
    """Positions [1, prefix + h * h, D] for the module's own grid, or None where they are not of a square grid."""
    before = int(getattr(module, "num_prefix_tokens", 0))
    if positions.ndim != 3:
        return None
    tokens = positions.shape[1] - before
    if tokens <= 0 or math.isqrt(tokens) ** 2 != tokens:
        return None
    old = (math.isqrt(tokens),) * 2
    return resize_positions(positions.float(), module.patch_embed.grid_size, old, before, rule)
