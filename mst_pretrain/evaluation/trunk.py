"""The backbone that an evaluation reads: which weights of a file, which model they belong to, loaded whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..checkpoints.architecture import architecture_of
from ..checkpoints.loading import backbone_prefix, load_backbone, refuse_leftovers
from ..checkpoints.storage import flat_tensors, load_checkpoint
from ..method.backbones import Trunk, build_trunk
from ..runtime.atomic import file_sha256
from ..runtime.errors import UserError
from .ranks import speaks

DEFAULT_MODEL = "vit_small_patch16_224"
RANDOM = "none"


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

    The file is unpickled once; its bytes are read a second time for the digest.

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
    whole = flat_tensors(loaded)[0]
    if prefix is None:
        prefix = backbone_prefix(checkpoint, whole)
    weights = {key[len(prefix) :]: value for key, value in whole.items() if key.startswith(prefix)}
    found = architecture_of(loaded.get("meta"), weights, checkpoint, None, model, given)
    model, arguments = found.name, found.arguments
    trunk = _build(model, arguments)
    report = load_backbone(trunk, checkpoint, prefix, tensors=whole)
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
