"""The method's switches: what each changes, and that it changes nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.method import mst as method
from mst_pretrain.method.masking import make_mask
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.optim import MSTOptimWrapperConstructor

Randomize = Callable[[nn.Module, int], nn.Module]
VIT = dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2)
SWIN = dict(
    name="swin_tiny_patch4_window7_224",
    img_size=128,
    drop_path_rate=0.0,
    window_size=2,
    embed_dim=8,
    depths=(1, 1, 1, 2),
    num_heads=(1, 1, 2, 2),
)
HEAD = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8, norm_last_layer=False)
MASKED: dict[str, Any] = dict(
    masking=dict(mode="attention", num=2, prob=0.6), decoder=dict(width=8, min_width=4)
)
BOTH = pytest.mark.parametrize(("backbone", "size"), [(VIT, 32), (SWIN, 128)], ids=["vit", "swin"])


def model_of(randomize: Randomize, backbone: dict[str, Any], **options: Any) -> MST:
    """Every weight drawn, the same in every model of one backbone; the teacher another than the student."""
    model = MST(backbone, HEAD, **{**MASKED, **options})
    randomize(model, 0)
    randomize(model.teacher, 1)
    return model.train()


def batch_of(size: int, count: int = 3, locals_: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "global_views": torch.randn(2, count, 3, size, size, generator=generator),
        "local_views": torch.randn(locals_, count, 3, size // 2, size // 2, generator=generator),
        "seeds": torch.randint(2**60, (count,), generator=generator),
    }


def losses_and_gradients(model: MST, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)  # drop path
    losses = model.loss(**batch)
    (losses["loss_ce"] + losses["loss_rec"]).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert set(one) == set(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance, msg=name)


@BOTH
def test_gradient_checkpointing_changes_memory_only(
    randomize: Randomize, backbone: dict[str, Any], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses or gradients would differ, drop path be drawn again in the backward pass, or nothing be recomputed."""
    backbone, batch = backbone | {"drop_path_rate": 0.5}, batch_of(size)
    plain = losses_and_gradients(model_of(randomize, backbone), batch)
    runs: list[int] = []
    model = model_of(randomize, backbone, gradient_checkpointing=True)
    trunk = model.student.backbone
    last = trunk.layers[-1].blocks[-1] if "swin" in backbone["name"] else trunk.blocks[-1]
    last.attn.register_forward_hook(lambda *_: runs.append(1))
    recomputed = losses_and_gradients(model, batch)
    assert len(runs) == 4  # global and local views, forward and again in the backward pass
    for one, other in zip(plain, recomputed, strict=True):
        assert_same(one, other, 1e-6)


@pytest.mark.parametrize(
    ("backbone", "size", "checkpointing"),
    [(VIT, 32, True), (SWIN | {"depths": (2,), "num_heads": (1,)}, 32, False)],
    ids=["vit", "swin"],
)
def test_compiled_models_are_the_models(
    randomize: Randomize, backbone: dict[str, Any], size: int, checkpointing: bool
) -> None:
    """torch.compile would change losses or gradients, drop other paths, or change a checkpoint's keys."""
    backbone, batch = backbone | {"drop_path_rate": 0.5, "img_size": size}, batch_of(size)
    plain = model_of(randomize, backbone)
    model = model_of(randomize, backbone, compile="aot_eager", gradient_checkpointing=checkpointing)
    assert list(model.state_dict()) == list(plain.state_dict())
    expected, got = losses_and_gradients(plain, batch), losses_and_gradients(model, batch)
    torch._dynamo.reset()
    for one, other in zip(expected, got, strict=True):
        assert_same(one, other, 1e-5)


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Every mask the method makes."""
    made: list[Tensor] = []

    def spy(**arguments: Any) -> Tensor | None:
        mask = make_mask(**arguments)
        if mask is not None and mask.numel() > 1:  # the constructor tries one token
            made.append(mask)
        return mask

    monkeypatch.setattr(method, "make_mask", spy)
    yield made


@BOTH
def test_local_crops_are_masked_only_when_asked(
    randomize: Randomize, backbone: dict[str, Any], size: int, masks: list[Tensor]
) -> None:
    """The switch would do nothing, mask local crops by default, or hide other tokens of the global views."""
    batch = batch_of(size)
    plain = model_of(randomize, backbone).loss(**batch)
    assert len(masks) == 1
    local = model_of(randomize, backbone, mask_local=True).loss(**batch)
    assert len(masks) == 3 and torch.equal(masks[0], masks[1])
    side = masks[0].shape[-1] // 2
    assert masks[2].shape == (2 * 3, side, side)
    assert plain["loss_rec"] == local["loss_rec"] and plain["loss_ce"] != local["loss_ce"]


def test_local_crops_draw_their_own_masks(randomize: Randomize, masks: list[Tensor]) -> None:
    """The masks of the local crops would repeat the draws of the global views."""
    batch = batch_of(32)
    batch["local_views"] = batch["global_views"]  # equal attention, so that only the draws can differ
    model_of(randomize, VIT, mask_local=True).loss(**batch)
    assert masks[0].shape == masks[1].shape and masks[0].any() and masks[1].any()
    assert (masks[0] != masks[1]).flatten(1).any(1).all()


def test_the_mask_token_starts_at_zero() -> None:
    """Hidden tokens would start from a random vector, not from nothing."""
    token = MST(VIT, HEAD, **MASKED).mask_token
    assert token is not None and token.requires_grad and not token.any()


def test_masks_of_local_crops_follow_the_teacher(randomize: Randomize, masks: list[Tensor]) -> None:
    """Local crops would be masked by other tokens than those the teacher attends to least in them."""
    batch = batch_of(32)
    model = model_of(
        randomize, VIT, mask_local=True, masking=dict(mode="attention", num=2, prob=1.0), decoder=None
    )
    model.loss(**batch)
    with torch.no_grad():
        attention = model.teacher_features(batch["local_views"].flatten(0, 1)).attention
    assert attention is not None
    hidden = torch.where(masks[1], attention, -torch.inf).flatten(1).max(1).values
    visible = torch.where(masks[1], torch.inf, attention).flatten(1).min(1).values
    assert (hidden < visible).all() and (masks[1].flatten(1).sum(1) == 2).all()


def test_reversed_guidance_hides_the_most_attended() -> None:
    """The study's control would hide what MST hides."""
    attention = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(0))
    arguments: dict[str, Any] = {"attention": attention, "seeds": torch.arange(5), "num": 4, "prob": 1.0}
    mask = make_mask("attention_reversed", **arguments)
    assert mask is not None and (mask.flatten(1).sum(1) == 4).all()
    assert (
        torch.where(mask, attention, 2).flatten(1).min(1).values
        > torch.where(mask, -1, attention).flatten(1).max(1).values
    ).all()


def test_bfloat16_on_the_cpu(randomize: Randomize) -> None:
    """A CPU run in bfloat16 would run in float32, lose gradients to the teacher's cached casts, or round the losses."""
    batch = batch_of(32)
    plain = model_of(randomize, VIT)
    expected = plain(**batch)
    assert all(layer.fused_attn for layer in plain.modules() if hasattr(layer, "fused_attn"))
    model = model_of(randomize, VIT)
    wrapper = MSTOptimWrapperConstructor(
        {"type": "MSTOptimWrapper", "optimizer": {"type": "AdamW"}, "dtype": "bfloat16"}
    )(model)
    seen: list[torch.dtype] = []
    model.student.backbone.blocks[0].mlp.fc1.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    with wrapper.optim_context(model):
        losses = model(**batch)
    assert set(seen) == {torch.bfloat16}
    assert not any(layer.fused_attn for layer in model.modules() if hasattr(layer, "fused_attn"))
    # the teacher's logits are divided by 0.04, and with them bfloat16's rounding of 2 ** -8
    for name, rtol in (("loss_ce", 3e-2), ("loss_rec", 3e-2), ("teacher_entropy", 2**-8 / 0.04)):
        assert losses[name].dtype == torch.float32
        assert losses[name] != expected[name]
        torch.testing.assert_close(losses[name], expected[name], rtol=rtol, atol=0)
    (losses["loss_ce"] + losses["loss_rec"]).backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert without == []


def test_other_types_are_refused() -> None:
    """float16 without loss scaling would train on gradients of zero."""
    model = MST(VIT, HEAD)
    with pytest.raises(UserError, match=r"float16.*MSTAmpOptimWrapper"):
        MSTOptimWrapperConstructor(
            {"type": "MSTOptimWrapper", "optimizer": {"type": "AdamW"}, "dtype": "float16"}
        )(model)
