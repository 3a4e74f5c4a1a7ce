"""Precision of a forward pass, and copies to the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mst_pretrain.runtime import devices
from mst_pretrain.runtime.devices import autocast, on_host, precision_on, run_in

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "inside"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_function_runs_in_its_precision(precision: str, inside: torch.dtype) -> None:
    """A forward pass would stay in float32, or hand bfloat16 on to heads that compute boxes of a large image."""
    layer, seen = torch.nn.Linear(3, 2), []
    layer.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    images = torch.randn(4, 3)
    alone = run_in(precision, CPU, layer)(images)
    pair = run_in(precision, CPU, lambda x: (layer(x), layer(2 * x)))(images)
    assert seen == [inside] * 3 and isinstance(pair, tuple)
    assert {found.dtype for found in (alone, *pair)} == {torch.float32}
    torch.testing.assert_close(alone, layer(images), rtol=0.02, atol=0.02)
    with autocast(CPU, precision):
        assert layer(images).dtype == inside


def test_auto_is_what_the_device_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU would evaluate in bfloat16 without being asked, or a GPU of today in float32."""
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
    for capability, expected in (((9, 0), "bfloat16"), ((7, 0), "float32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert precision_on(gpu) == expected
    assert precision_on(CPU) == "float32"
    assert [precision_on(CPU, asked) for asked in ("float32", "bfloat16")] == ["float32", "bfloat16"]


def test_the_next_batch_is_computed_while_one_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would idle at every batch until the host has its features, or features change places or get lost."""
    told: list[str] = []

    def copies(tensor: Tensor) -> object:
        return lambda: told.append(f"wait {int(tensor)}") or tensor

    def computed() -> Iterator[Tensor]:
        for number in range(3):
            told.append(f"compute {number}")
            yield torch.tensor(number)

    assert [int(tensor) for tensor in on_host(computed())] == [0, 1, 2] and not list(on_host([]))
    told.clear()
    monkeypatch.setattr(devices, "to_host", copies)
    list(on_host(computed()))
    assert told == ["compute 0", "compute 1", "wait 0", "compute 2", "wait 1", "wait 2"]
