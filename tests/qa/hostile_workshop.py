"""Where ``hostile_cases.py`` makes its files: good weights, ways to write them, and two classes to pickle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import timm
import torch
from torch import Tensor

from mst_pretrain.checkpoints.storage import save_safetensors

MODEL = "vit_tiny_patch16_224"
State = dict[str, Tensor]
Arguments = list[Any]  # of the tool; the first is the source


class Workshop:
    """One case's folder and the good weights that its file is made from.

    Args:
        folder: Empty.
        state: Of :data:`MODEL`, timm's keys.
    """

    def __init__(self, folder: Path, state: State) -> None:
        self.folder, self.state = folder, state
        self.destination, self.marker = folder / "new.safetensors", folder / "the_code_ran"

    @staticmethod
    def weights(model: str = MODEL, **arguments: Any) -> State:
        """A model's random weights; norms, biases and tables too."""
        generator = torch.Generator().manual_seed(0)
        built = timm.create_model(model, num_classes=0, **arguments)
        state = {}
        for key, value in built.state_dict().items():
            noise = torch.randn(value.shape, generator=generator)
            scale = value[0].numel() ** -0.5 if value.dim() > 1 and key.endswith("weight") else 0.3
            state[key] = noise * scale + float(value.dim() == 1 and key.endswith("weight"))
        return state

    @cached_property
    def source(self) -> Any:
        """timm's model of the weights as they stand when this is first asked for."""
        model = timm.create_model(MODEL, num_classes=0).eval()
        model.load_state_dict({key: value.float() for key, value in self.state.items()})
        return model

    def pth(self, content: Any, name: str = "source.pth") -> Path:
        """``torch.save``."""
        torch.save(content, self.folder / name)
        return self.folder / name

    def tensors(self, state: State, name: str = "source.safetensors") -> Path:
        """``.safetensors``."""
        save_safetensors({key: value.clone() for key, value in state.items()}, self.folder / name)
        return self.folder / name

    def raw(self, content: bytes, name: str) -> Path:
        """Bytes as they are."""
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def prefixed(self, prefix: str) -> State:
        """The good weights with something before each key."""
        return {f"{prefix}{key}": value for key, value in self.state.items()}

    def without(self, *starts: str, state: State | None = None) -> State:
        """The weights less those whose key starts so."""
        return {k: v for k, v in (state or self.state).items() if not k.startswith(starts)}


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: What it is.
        make: Writes it; the tool's arguments, the source first.
        expected: Pattern of the refusal; None: it is converted with equal features.
        names_destination: ``make`` gives the destination too.
        process: Run the tool as a process of its own.
        room: Bytes that a file may have while the tool runs, as if the disk were full then.
    """

    name: str
    make: Callable[[Workshop], Arguments]
    expected: str | None = None
    names_destination: bool = False
    process: bool = False
    room: int | None = None


class Malicious:
    """Pickles to a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


@contextmanager
def yacs() -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A stand-in for ``yacs.config.CfgNode`` with its attributes, gone again when the tool runs [code: yacs]."""
    module: Any = ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, content: dict[str, Any]) -> None:
            super().__init__({k: CfgNode(v) if isinstance(v, dict) else v for k, v in content.items()})
            self.__dict__.update(__immutable__=True, __deprecated_keys__=set(), __renamed_keys__={})
            self.__dict__["__new_allowed__"] = False

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode
    before = {name: sys.modules.get(name) for name in ("yacs", "yacs.config")}
    sys.modules.update({"yacs": ModuleType("yacs"), "yacs.config": module})
    try:
        yield CfgNode
    finally:
        for name, old in before.items():
            del sys.modules[name]
            if old is not None:
                sys.modules[name] = old
