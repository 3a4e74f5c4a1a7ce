"""The backbone that an evaluation reads: which weights of a file, which model they belong to, loaded whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..checkpoints.architecture import architecture_of
from ..checkpoints.backbone import read_backbone
from ..method.backbones import Trunk, build_trunk
from ..runtime.atomic import file_sha256
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
        checkpoint: Anybody's, as :func:`read_backbone` takes it; None or ``none`` for random weights.
        prefix: Exactly what stands before the backbone's keys; None finds it.
        model: timm name; None takes the file's.
        model_args: timm arguments that differ from the file's (or from the named model's).
        seed: Of random weights.

    Raises:
        UserError: The file cannot be read, is of another kind, or does not fit the model whole.
    """
    if checkpoint is None or checkpoint == RANDOM:
        if speaks():
            print(f"random weights, seed {seed}: a control, no pretrained backbone", file=sys.stderr)
        built = architecture_of(None, {}, RANDOM, model=model or DEFAULT_MODEL, model_args=model_args)
        built.shapes()  # the model can be built
        torch.manual_seed(seed)
        trunk = build_trunk(built.name, **built.arguments).eval()
        return trunk, Origin(built.name, built.arguments, RANDOM, None, None, seed)
    backbone = read_backbone(checkpoint, prefix=prefix, model=model, model_args=model_args)
    name, arguments = backbone.architecture.name, backbone.architecture.arguments
    trunk = build_trunk(name, **arguments)
    trunk.load_state_dict(backbone.state)
    if speaks():
        print(f"{checkpoint}\n{backbone}", file=sys.stderr)
    digest = file_sha256(backbone.file.path)
    return trunk.eval(), Origin(name, arguments, str(checkpoint), digest, backbone.reading.prefix, None)
