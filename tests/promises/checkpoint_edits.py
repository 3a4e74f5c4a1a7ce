"""Small edits that the checkpoint files are made of."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tests.promises.verdicts import State

Make = Callable[[State, State, Path], Path]


def prefixed(prefix: str, state: State) -> dict[str, Tensor]:
    """Returns the state with a prefix before every name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def inside(wrapper: str, state: State) -> dict[str, Tensor]:
    """Returns the state with a wrapper's name behind every block: blocks.0.norm1 becomes blocks.0.WRAPPER.norm1."""
    return {re.sub(r"^(blocks\.\d+\.)", rf"\1{wrapper}.", name): tensor for name, tensor in state.items()}


def each(function: Callable[[Tensor], Tensor]) -> Callable[[State], dict[str, Tensor]]:
    """Returns an edit of every tensor of a state."""
    return lambda state: {name: function(tensor) for name, tensor in state.items()}


def saved(content: Callable[[State, State], object], suffix: str = ".pth", legacy: bool = False) -> Make:
    """Returns a maker of a file that torch.save writes, in its older format where `legacy` is set."""

    def make(state_a: State, state_b: State, path: Path) -> Path:
        file = path.with_suffix(suffix)
        torch.save(content(state_a, state_b), file, _use_new_zipfile_serialization=not legacy)
        return file

    return make


def changed(make: Make, function: Callable[[bytes], bytes]) -> Make:
    """Returns a maker whose file's bytes are put through a function."""

    def make_changed(state_a: State, state_b: State, path: Path) -> Path:
        file = make(state_a, state_b, path)
        file.write_bytes(function(file.read_bytes()))
        return file

    return make_changed


def raw(data: bytes, suffix: str = ".pth") -> Make:
    """Returns a maker of a file of given bytes."""

    def make(state_a: State, state_b: State, path: Path) -> Path:
        file = path.with_suffix(suffix)
        file.write_bytes(data)
        return file

    return make
