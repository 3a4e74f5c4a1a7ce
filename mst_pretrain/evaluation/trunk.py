"""The backbone that an evaluation reads: which weights of a file, which model they belong to, loaded whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
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

    Random weights have the checkpoint ``none`` and an ``init_seed``, those of a file its ``sha256`` and ``prefix``.
    """

    model: str
    model_args: dict[str, Any]
    checkpoint: str
    sha256: str | None
    prefix: str | None
    init_seed: int | None


def load_trunk(
    checkpoint: str | None,
    prefix: str | None = None,
    model: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[Trunk, Origin]:
    """A trunk in evaluation mode with every weight of a checkpoint, or with random weights.

    Args:
        checkpoint: Anybody's, as :func:`read_backbone` takes it, with the next three; None or ``none`` for random
            weights.
        seed: Of random weights.

    Raises:
        UserError: See :func:`read_backbone`.
    """
    if checkpoint in (None, RANDOM):
        if speaks():
            print(f"random weights, seed {seed}: a control, no pretrained backbone", file=sys.stderr)
        built = architecture_of({}, {}, RANDOM, model=model or DEFAULT_MODEL, model_args=model_args)
        built.shapes()  # the model can be built
        torch.manual_seed(seed)
        trunk = build_trunk(built.name, **built.arguments).eval()
        return trunk, Origin(built.name, built.arguments, RANDOM, None, None, seed)
    backbone = read_backbone(checkpoint, prefix=prefix, model=model, model_args=model_args)
    name, arguments = backbone.architecture.name, backbone.architecture.arguments
    rule = {} if backbone.positions is None else {"positions": backbone.positions}
    trunk = build_trunk(name, **rule, **arguments)
    trunk.load_state_dict(backbone.state)
    if speaks():
        print(f"{checkpoint}\n{backbone}", file=sys.stderr)
    digest = file_sha256(backbone.file.path)
    return trunk.eval(), Origin(name, arguments, str(checkpoint), digest, backbone.reading.prefix, None)
