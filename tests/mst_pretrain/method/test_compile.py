"""torch.compile: every crop size has a graph of its own, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.method.mst import MST

Randomize = Callable[[nn.Module, int], nn.Module]
BACKEND = "counts_graphs"
VIT: dict[str, Any] = dict(
    name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2
)
SWIN: dict[str, Any] = dict(
    name="swin_tiny_patch4_window7_224",
    img_size=64,
    window_size=2,
    embed_dim=8,
    depths=(1, 2),
    num_heads=(1, 2),
    drop_path_rate=0.0,
)


def sizes_in(module: torch.fx.GraphModule) -> list[Any]:
    """Every size of every tensor that a graph is given, and every number that it is given."""
    found: list[Any] = []
    for node in module.graph.nodes:
        value = node.meta.get("example_value") if node.op == "placeholder" else None
        found += list(value.shape) if isinstance(value, Tensor) else [] if value is None else [value]
    return found


GRAPHS: list[torch.fx.GraphModule] = []


@torch._dynamo.register_backend(name=BACKEND)
def counts_graphs(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Keep the graph and run it as it is."""
    GRAPHS.append(module)
    return module.forward


@pytest.fixture
def graphs() -> Iterator[list[torch.fx.GraphModule]]:
    """Every graph that the test compiles."""
    torch._dynamo.reset()
    GRAPHS.clear()
    yield GRAPHS
    torch._dynamo.reset()


@pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])
def test_two_crop_sizes_compile_once_each(
    randomize: Randomize, backbone: dict[str, Any], graphs: list[torch.fx.GraphModule]
) -> None:
    """The second crop size would compile with symbolic sizes, slower for both, or every change of size again."""
    head = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8)
    masking = dict(mode="attention", num=2, prob=0.6)
    model = MST(backbone, head, masking=masking, compile=BACKEND)
    randomize(model, 0)
    model.train()
    size, generator = backbone["img_size"], torch.Generator().manual_seed(0)
    batch = {
        "global_views": torch.randn(2, 3, 3, size, size, generator=generator),
        "local_views": torch.randn(2, 3, 3, size // 2, size // 2, generator=generator),
        "seeds": torch.arange(3),
    }
    first = model.loss(**batch)  # teacher and student at one size, then the student at the other
    compiled = len(graphs)
    assert compiled >= 3
    for _ in range(3):
        again = model.loss(**batch)
    assert len(graphs) == compiled
    assert torch.equal(first["loss_ce"], again["loss_ce"])
    sizes = [value for graph in graphs for value in sizes_in(graph)]
    assert not any(isinstance(value, torch.SymInt) for value in sizes)
    assert {size, size // 2} <= set(sizes)
