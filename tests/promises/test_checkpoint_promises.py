"""Checkpoint files as people have them: read bit for bit, refused for what they are, or asked which network."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from mst_pretrain.checkpoints.backbone import read_backbone
from mst_pretrain.runtime.errors import UserError
from tests.promises.checkpoint_mutators import MUTATORS
from tests.promises.parameters import as_parameters
from tests.promises.verdicts import CheckpointMutator

OPEN: dict[str, str] = {}  # mutators whose verdict does not hold yet, with the reason
States = tuple[dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def states() -> States:
    """The wanted network's weights, and another's."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
        found.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return found[0], found[1]


@pytest.mark.parametrize("mutator", as_parameters(MUTATORS, OPEN))
def test_checkpoint_files(
    mutator: CheckpointMutator, states: States, tmp_path: Path, record: Callable[..., None]
) -> None:
    """Another network than the wanted one would be trained on, or a whole file be called damaged."""
    file = mutator.make(*states, tmp_path / "weights")
    start, found, message = time.perf_counter(), "traceback", ""
    try:
        try:
            asked = mutator.verdict == "same"
            state = read_backbone(file, prefix=mutator.prefix if asked else None).state
            found = "same" if _equal(state, mutator.expected(states[0])) else "other weights"
        except UserError as error:
            found, message = "refused", str(error)
            if mutator.verdict == "choice" and (mutator.prefix or mutator.which or "") in message:
                state = read_backbone(file, prefix=mutator.prefix, which=mutator.which).state
                found = "choice" if _equal(state, mutator.expected(states[0])) else "other weights"
    finally:
        record("checkpoint", mutator.verdict, found, time.perf_counter() - start)
    assert found == mutator.verdict, message
    if mutator.verdict == "refused":
        assert file.name in message, message
        assert any(
            word.lower() in message.lower().replace(str(tmp_path).lower(), "") for word in mutator.says
        ), message
        assert ("copy" in message.lower() and "again" in message.lower()) == mutator.cut, message


def _equal(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return state.keys() == wanted.keys() and all(
        state[name].dtype == torch.float32 and torch.equal(state[name], wanted[name]) for name in wanted
    )
