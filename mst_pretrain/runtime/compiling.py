"""torch.compile as a run uses it: small functions, one graph for each shape of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from .errors import InvalidValue

P = ParamSpec("P")
R = TypeVar("R")
# A function has more graphs than torch's limit of 8: 4 widths of a Swin, teacher and student, sizes of crops
GRAPHS_OF_A_FUNCTION = 64


def compiled(function: Callable[P, R], backend: str | None) -> Callable[P, R]:
    """The function by ``torch.compile``, or as it is where ``backend`` is None.

    The first call with tensors of new shapes compiles; symbolic shapes would cost every shape its speed. With
    ``inductor`` torch keeps what it compiled on disk (``TORCHINDUCTOR_CACHE_DIR``), and a later run starts from that.

    Args:
        function: Of tensors, and of numbers and modules whose attributes count as constants of the graph.
        backend: Of ``torch.compile``, e.g. ``inductor``.

    Raises:
        InvalidValue: torch has no such backend.
    """
    if backend is None:
        return function
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise InvalidValue(f"compile backend '{backend}' is unknown; choose one of {known}")
    config = torch._dynamo.config
    config.cache_size_limit = max(config.cache_size_limit, GRAPHS_OF_A_FUNCTION)
    return torch.compile(function, backend=backend, dynamic=False)
