"""What the student's first block is given during training: which tokens are hidden, and what stands there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.method.mst import MST

Randomize = Callable[[nn.Module, int], nn.Module]
VIT: dict[str, Any] = dict(
    name="vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=16, depth=2, num_heads=2
)
SWIN: dict[str, Any] = dict(  # stage 1 has 24 x 24 tokens, stage 4 has 3 x 3 in one window
    name="swin_tiny_patch4_window7_224",
    img_size=96,
    window_size=3,
    embed_dim=8,
    depths=(1, 1, 1, 1),
    num_heads=(1, 1, 2, 2),
    drop_path_rate=0.0,
)
HEAD = dict(prototypes=8, hidden_dim=8, bottleneck_dim=4)
IMAGES = 5


def model_of(randomize: Randomize, backbone: dict[str, Any], **masking: Any) -> MST:
    model = MST(backbone, HEAD, masking={"mode": "attention", **masking})
    randomize(model, 2)
    return model.train()


def batch_of(seed: int, size: int, locals_: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "global_views": torch.randn(2, IMAGES, 3, size, size, generator=generator),
        "local_views": torch.randn(locals_, IMAGES, 3, size // 2, size // 2, generator=generator),
        "seeds": torch.randint(2**60, (IMAGES,), generator=generator),
    }


def student_inputs(model: MST, batch: dict[str, Tensor]) -> list[Tensor]:
    """What the student's first block (Swin: stage) is given for the global views, then for the local ones."""
    trunk: Any = model.student.backbone
    given: list[Tensor] = []
    first = trunk.layers[0].blocks[0] if hasattr(trunk, "layers") else trunk.blocks[0]
    handle = first.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    with torch.no_grad():
        model.loss(**batch)
    handle.remove()
    return given


def hidden_in(model: MST, batch: dict[str, Tensor]) -> Tensor:
    """[2, B, ...]: which of the student's tokens are the mask token and nothing else."""
    trunk: Any = model.student.backbone
    x = student_inputs(model, batch)[0]
    if not hasattr(trunk, "layers"):
        x = x[:, 1:] - trunk.pos_embed[:, 1:]
    assert model.mask_token is not None
    return ((x - model.mask_token).abs().amax(-1) < 1e-6).unflatten(0, (2, -1))


def replaced(batch: dict[str, Tensor], other: dict[str, Tensor], kept: int) -> dict[str, Tensor]:
    """Every image of the batch but one is another, with another seed."""
    result = {key: value.clone() for key, value in other.items()}
    for key in ("global_views", "local_views"):
        result[key][:, kept] = batch[key][:, kept]
    result["seeds"][kept] = batch["seeds"][kept]
    return result


@torch.no_grad()
@pytest.mark.parametrize(("num", "prob"), [(1, 1.0), (2, 0.6)])
def test_class_token_and_local_crops_are_never_hidden(randomize: Randomize, num: int, prob: float) -> None:
    """[CLS], a visible token or a local crop would be replaced, even where every patch may be hidden."""
    model, batch = model_of(randomize, VIT, num=num, prob=prob), batch_of(1, 32)
    trunk: Any = model.student.backbone
    masked, local = student_inputs(model, batch)
    plain = trunk._pos_embed(trunk.patch_embed(batch["global_views"].flatten(0, 1)))
    assert torch.equal(masked[:, 0], (trunk.cls_token + trunk.pos_embed[:, :1])[:, 0].expand(2 * IMAGES, -1))
    assert torch.equal(local, trunk._pos_embed(trunk.patch_embed(batch["local_views"].flatten(0, 1))))
    hidden = hidden_in(model, batch).flatten(0, 1)
    assert torch.equal(masked[:, 1:][~hidden], plain[:, 1:][~hidden])
    assert hidden.all() if num == 1 else 0 < hidden.sum() < hidden.numel() / num


@pytest.mark.parametrize(("backbone", "size"), [(VIT, 32), (SWIN, 96)], ids=["vit", "swin"])
def test_image_is_masked_by_itself_and_its_seed(
    randomize: Randomize, backbone: dict[str, Any], size: int
) -> None:
    """An image's mask would depend on its place in the batch, on its neighbours or on torch's random state."""
    model, batch = model_of(randomize, backbone, num=2, prob=0.5), batch_of(2, size, 0)
    hidden = hidden_in(model, batch)
    assert 0 < hidden.float().mean() < 0.5
    torch.manual_seed(99)
    assert torch.equal(hidden, hidden_in(model, batch))
    order = [3, 0, 4, 1, 2]
    permuted = {key: value[order] if key == "seeds" else value[:, order] for key, value in batch.items()}
    assert torch.equal(hidden[:, order], hidden_in(model, permuted))
    for kept in (0, 3):
        others = hidden_in(model, replaced(batch, batch_of(3, size, 0), kept))
        assert torch.equal(hidden[:, kept], others[:, kept])
        assert not torch.equal(hidden, others)
    assert not torch.equal(hidden, hidden_in(model, batch | {"seeds": batch["seeds"] + 1}))


def test_views_of_an_image_draw_apart(randomize: Randomize) -> None:
    """Both views of an image would lose the same candidates, though each is masked for itself."""
    model, batch = model_of(randomize, VIT, num=2, prob=0.5), batch_of(4, 32)
    batch["global_views"] = batch["global_views"][:1].expand(2, -1, -1, -1, -1)
    first, second = hidden_in(model, batch)
    assert all(not torch.equal(one, other) for one, other in zip(first, second, strict=True))
    certain = model_of(randomize, VIT, num=2, prob=1.0)
    first, second = hidden_in(certain, batch)
    assert torch.equal(first, second) and (first.sum(1) == 32).all()  # the candidates are the same 32 of 64


@pytest.mark.parametrize("num", [1, 2, 4, 10])
def test_swin_hides_whole_stage_4_tokens(randomize: Randomize, num: int) -> None:
    """A unit would be hidden in part, or another number of units than floor(9 / num), or the most attended."""
    model, batch = model_of(randomize, SWIN, num=num, prob=1.0), batch_of(5, 96)
    hidden = hidden_in(model, batch).flatten(0, 1)
    _, attention = model.forward_teacher(batch["global_views"].flatten(0, 1))
    assert hidden.shape == (2 * IMAGES, 24, 24) and attention.shape == (2 * IMAGES, 3, 3)
    for tokens, received in zip(hidden.tolist(), attention.flatten(1).tolist(), strict=True):
        units = [
            {tokens[8 * (unit // 3) + i][8 * (unit % 3) + j] for i in range(8) for j in range(8)}
            for unit in range(9)
        ]
        chosen = {unit for unit in range(9) if units[unit] == {True}}
        assert all(len(values) == 1 for values in units)
        assert chosen == set(sorted(range(9), key=received.__getitem__)[: 9 // num])
