"""torch.compile: one graph for all blocks of a shape, and what is computed stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.data import photometric
from mst_pretrain.data.multicrop import PARAMETERS
from mst_pretrain.method.backbones import forward_trunk
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


HEAD = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8)
MASKING = dict(mode="attention", num=2, prob=0.6)


def batch_of(size: int, seed: int = 0) -> dict[str, Tensor]:
    """Global views of that size, local views of half of it, of three images."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "global_views": torch.randn(2, 3, 3, size, size, generator=generator),
        "local_views": torch.randn(2, 3, 3, size // 2, size // 2, generator=generator),
        "seeds": torch.arange(3),
    }


@pytest.mark.parametrize(("backbone", "tokens"), [(VIT, {17, 5}), (SWIN, {16, 8, 4})], ids=["vit", "swin"])
def test_two_crop_sizes_compile_once_each(
    randomize: Randomize, backbone: dict[str, Any], tokens: set[int], graphs: list[torch.fx.GraphModule]
) -> None:
    """The second crop size would compile with symbolic sizes, slower for both, or every change of size again."""
    model = MST(backbone, HEAD, masking=MASKING, compile=BACKEND)
    randomize(model, 0)
    model.train()
    batch = batch_of(backbone["img_size"])
    first = model.loss(**batch)  # teacher and student at one size, then the student at the other
    compiled = len(graphs)
    for temperature in (0.05, 0.06, 0.04):
        model.teacher_temperature = temperature
        again = model.loss(**batch)
    assert len(graphs) == compiled
    assert torch.equal(first["loss_ce"], again["loss_ce"])
    sizes = [value for graph in graphs for value in sizes_in(graph)]
    assert not any(isinstance(value, torch.SymInt) for value in sizes)
    assert tokens <= set(sizes)


@pytest.mark.parametrize(
    ("backbone", "widths"),
    [
        (VIT | {"depth": 6}, 1),
        (VIT | {"depth": 12}, 1),
        (SWIN | {"depths": (4,) * 4, "num_heads": (1,) * 4}, 4),
    ],
    ids=["vit-6", "vit-12", "swin-4-4-4-4"],
)
def test_depth_costs_no_graphs(
    backbone: dict[str, Any], widths: int, graphs: list[torch.fx.GraphModule]
) -> None:
    """Every block would be compiled for itself, by its drop path or shift, or a part of a block left out."""
    torch._dynamo.utils.counters.clear()
    model = MST(backbone | {"drop_path_rate": 0.5}, HEAD, masking=MASKING, compile=BACKEND).train()
    with torch.autocast("cpu", torch.bfloat16):  # what a GPU's runs are
        losses = model(**batch_of(backbone["img_size"]))
    losses["loss_ce"].backward()
    assert all(p.grad is not None for p in model.student.backbone.parameters())
    # the teacher, the student at two sizes; and the loss
    assert len(graphs) == 3 * widths + 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_colours_compile_once(graphs: list[torch.fx.GraphModule], monkeypatch: pytest.MonkeyPatch) -> None:
    """The colours on a GPU would be other ones, or be compiled again for every batch's largest blur."""
    monkeypatch.setattr(photometric, "_on_gpu", lambda images: True)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    plain = photometric.MultiCropPreprocessor()
    model = MST(VIT, HEAD, compile=BACKEND, data_preprocessor=dict(type="MultiCropPreprocessor"))
    for seed, sigma in enumerate((2.0, 1.9, 1.7)):
        generator = torch.Generator().manual_seed(seed)
        parameters = torch.rand(4, 1, len(PARAMETERS), generator=generator)
        parameters[..., PARAMETERS.index("order")] *= 24
        parameters[:, 0, PARAMETERS.index("sigma")] = torch.tensor([sigma, 1.0, 0.0, 0.5])
        crops = torch.randint(256, (4, 1, 3, 16, 16), generator=generator, dtype=torch.uint8)
        data = {"seed": torch.arange(4), "global_crops": crops, "global_parameters": parameters}
        data |= {"local_crops": crops[:, :0], "local_parameters": parameters[:, :0]}
        expected, got = plain(data), model.data_preprocessor(data)
        torch.testing.assert_close(got["global_views"], expected["global_views"], rtol=1e-5, atol=1e-5)
    assert len(graphs) == 1


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_teacher_and_center_follow_their_formulas(
    randomize: Randomize, backend: str | None, graphs: list[torch.fx.GraphModule]
) -> None:
    """Compiled code would read weights or a centre of an earlier step, or move the teacher otherwise."""
    model = MST(VIT | {"drop_path_rate": 0.3, "depth": 2}, HEAD, masking=MASKING, compile=backend)
    randomize(model.student, 0)
    randomize(model.teacher, 1)
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    teacher = {name: p.clone() for name, p in model.teacher.named_parameters()}
    center = torch.zeros(24)
    for step in range(10):
        batch = batch_of(32, seed=step)
        with torch.no_grad():
            pooled = forward_trunk(model.teacher.backbone, batch["global_views"].flatten(0, 1)).pooled
            center = 0.9 * center + 0.1 * model.teacher.head(pooled).mean(0)
        optimizer.zero_grad()
        model.loss(**batch)["loss_ce"].backward()
        optimizer.step()
        model.update_teacher(0.8)
        for name, p in model.student.named_parameters():
            teacher[name] = 0.8 * teacher[name] + 0.2 * p.detach()
    torch.testing.assert_close(model.distillation.center, center, rtol=1e-5, atol=1e-6)
    for name, p in model.teacher.named_parameters():
        torch.testing.assert_close(p, teacher[name], rtol=1e-5, atol=1e-6, msg=name)
