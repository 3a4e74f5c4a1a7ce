"""What must hold of the two networks: gradients, momentum, drop path, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.method.backbones import forward_trunk
from mst_pretrain.method.masking import make_mask
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError

Randomize = Callable[[nn.Module, int], nn.Module]
VIT = dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
SWIN = dict(
    name="swin_tiny_patch4_window7_224",
    img_size=64,
    window_size=2,
    embed_dim=8,
    depths=(1, 1, 1, 2),
    num_heads=(1, 1, 2, 2),
)
HEAD = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8, norm_last_layer=False)
MASKED: dict[str, Any] = dict(
    masking=dict(mode="attention", num=2, prob=0.6), decoder=dict(width=8, min_width=4), lambda_rec=0.6
)
PLAIN: dict[str, Any] = dict(masking=dict(mode="none"), decoder=None)


def model_of(randomize: Randomize, backbone: dict[str, Any], method: dict[str, Any]) -> MST:
    """Every weight drawn; the teacher equal to the student."""
    model = MST(backbone, HEAD, **method)
    randomize(model, 0)
    model.teacher.load_state_dict(model.student.state_dict())
    return model.train()


def batch_of(count: int, locals_: int, seed: int, size: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "global_views": torch.randn(2, count, 3, size, size, generator=generator),
        "local_views": torch.randn(locals_, count, 3, size // 2, size // 2, generator=generator),
        "seeds": torch.randint(2**60, (count,), generator=generator),
    }


@pytest.mark.parametrize(
    "method",
    [MASKED, PLAIN, MASKED | {"decoder": None}, PLAIN | {"decoder": MASKED["decoder"]}],
    ids=["mask-decoder", "plain", "mask", "decoder"],
)
@pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])
@pytest.mark.parametrize("autocast", [False, True])
def test_every_trainable_parameter_gets_a_gradient(
    randomize: Randomize, backbone: dict[str, Any], method: dict[str, Any], autocast: bool
) -> None:
    """A part of the student, the mask token or the decoder would stay at its initial values."""
    model = model_of(randomize, backbone, method)
    batch = batch_of(3, 2, 1, backbone["img_size"])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model.loss(**batch)
    assert all(value.dtype == torch.float32 for key, value in losses.items() if "loss" in key)
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert ("mask_token" in dict(model.named_parameters())) == (method["masking"]["mode"] == "attention")


def test_batch_without_a_hidden_token_leaves_no_parameter_out(randomize: Randomize) -> None:
    """At a small p several processes would wait for ever for the mask token's gradient."""
    model = model_of(randomize, VIT, MASKED | {"masking": dict(mode="attention", num=2, prob=0.0)})
    model.parse_losses(model.loss(**batch_of(1, 1, 1)))[0].backward()
    assert model.mask_token is not None and model.mask_token.grad is not None
    assert not model.mask_token.grad.any()


def test_teacher_follows_by_momentum_and_shares_nothing(randomize: Randomize) -> None:
    """The teacher would be the student itself, or stay where it began."""
    model = MST(VIT, HEAD | {"norm": "bn"}, masking={"mode": "attention", "num": 2})
    student, teacher = model.student.state_dict(), model.teacher.state_dict()
    for key, value in student.items():
        assert torch.equal(value, teacher[key]) and value.data_ptr() != teacher[key].data_ptr()
    old = {key: value.clone() for key, value in teacher.items()}
    randomize(model.student, 3)
    for buffer in model.student.buffers():
        buffer.add_(1)
    moved = {key: value.clone() for key, value in student.items()}
    model.distillation.collect(torch.ones(2, 1, 24))
    model.update_teacher(0.75)
    assert all(torch.equal(value, moved[key]) for key, value in model.student.state_dict().items())
    buffers = dict(model.teacher.named_buffers())
    assert len(buffers) == 6
    for key, value in model.teacher.state_dict().items():
        expected = moved[key] if key in buffers else 0.75 * old[key] + 0.25 * moved[key]
        torch.testing.assert_close(value, expected)
        assert value.data_ptr() != student[key].data_ptr()


def test_drop_path_acts_in_the_student_only() -> None:
    """The teacher's targets would be noisy, or the student not regularised."""
    model = MST({**VIT, "drop_path_rate": 0.5}, HEAD).train()
    rates = [
        [getattr(block.drop_path1, "drop_prob", 0.0) for block in net.backbone.blocks]
        for net in (model.student, model.teacher)
    ]
    assert rates == [[0.0, 0.5], [0.0, 0.0]]


def test_pictures_show_what_training_sees(randomize: Randomize) -> None:
    """The quickstart's sheet would show another mask or restoration than the student's."""
    model = model_of(randomize, VIT, MASKED)
    images, seeds = batch_of(2, 0, 3)["global_views"][0], torch.tensor([5, 6])
    attention, mask, restored = model.restore(images, seeds)
    assert mask is not None and restored is not None
    assert attention.shape == mask.shape == (2, 4, 4) and restored.shape == images.shape
    assert 0 < mask.sum() <= 2 * 8
    untrained = MST(VIT, HEAD).restore(images, seeds)
    assert untrained[1] is None and untrained[2] is None


def test_statistics_are_what_their_names_say(randomize: Randomize) -> None:
    """A collapse, or a mask that hides what is attended to, would not be seen in the log."""
    model = model_of(randomize, VIT, MASKED)
    batch = batch_of(3, 2, 4)
    logged = model.loss(**batch)
    images, (views, count) = batch["global_views"].flatten(0, 1), batch["global_views"].shape[:2]
    _, attention = model.forward_teacher(images)
    seeds = torch.cat([batch["seeds"] * views + view for view in range(views)])
    mask = make_mask(attention=attention, seeds=seeds, **MASKED["masking"])
    assert mask is not None and 0 < mask.sum() < mask.numel() / 2
    assert logged["masked_tokens"].item() == pytest.approx(mask.sum().item() / (views * count))
    assert logged["attention_masked"].item() == pytest.approx(attention[mask].mean().item(), rel=1e-5)
    assert logged["attention_visible"].item() == pytest.approx(attention[~mask].mean().item(), rel=1e-5)
    with torch.no_grad():
        student = forward_trunk(model.student.backbone, images, mask, model.mask_token).pooled
    expected = (student / student.norm(dim=1, keepdim=True)).std(0).mean()
    assert logged["feature_std"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_nothing_to_train_is_refused() -> None:
    """A run whose loss is the constant 0 would go on for days."""
    with pytest.raises(UserError, match="lambda_ce"):
        MST(VIT, HEAD, lambda_ce=0.0)
    with pytest.raises(UserError, match="lambda_rec"):
        MST(VIT, HEAD, lambda_ce=0.0, lambda_rec=0.0, decoder={"width": 8})
    with pytest.raises(ValueError, match="predict"):
        MST(VIT, HEAD)(**batch_of(1, 0, 0), mode="predict")
