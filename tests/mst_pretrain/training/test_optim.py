"""Parameter groups, clipping and the frozen last layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mst_pretrain.method.mst import MST
from mst_pretrain.training.optim import (
    MSTOptimWrapper,
    MSTOptimWrapperConstructor,
    clip_each_tensor,
    norms_of,
    split_parameters,
)

VIT = dict(name="vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1)
HEAD = dict(prototypes=4, hidden_dim=4, bottleneck_dim=4, norm_last_layer=False)


def parameters_with(gradients: list[Tensor]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return parameters


def test_each_tensor_is_clipped_by_its_own_norm() -> None:
    """One large gradient would shrink all others, or a small one be scaled up."""
    given = [torch.tensor([3.0, 4.0]), torch.tensor([[0.3], [0.4]]), torch.zeros(3), torch.tensor([1e-3])]
    got = [gradient.clone() for gradient in given]
    norms = norms_of(got)
    assert norms == pytest.approx([5.0, 0.5, 0.0, 1e-3])
    clip_each_tensor(got, norms, 1.0)
    expected = [given[0] / 5, given[1], given[2], given[3]]
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    clip_each_tensor([], norms_of([]), 1.0)


def test_groups_of_the_method() -> None:
    """Biases, norms or the mask token would decay, the teacher would be optimised, or a weight left out."""
    model = MST(VIT, HEAD, masking={"mode": "attention"}, decoder={"width": 4})
    decayed, plain = split_parameters(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    got_decayed, got_plain = ({names[id(p)] for p in group} for group in (decayed, plain))
    trainable = {name: p for name, p in model.named_parameters() if not name.startswith("teacher.")}
    assert got_decayed | got_plain == set(trainable) and not got_decayed & got_plain
    assert got_plain == {name for name, p in trainable.items() if name.endswith("bias") or p.ndim < 2}
    assert {"mask_token", "student.backbone.norm.weight", "decoder.layers.0.bias"} <= got_plain
    assert {"student.backbone.pos_embed", "student.backbone.cls_token"} <= got_decayed


def wrapper_of(model: nn.Module, **options: Any) -> MSTOptimWrapper:
    cfg = {"type": "MSTOptimWrapper", "optimizer": {"type": "SGD", "lr": 1.0}, **options}
    wrapper = MSTOptimWrapperConstructor(cfg)(model)
    assert isinstance(wrapper, MSTOptimWrapper)
    return wrapper


def test_step_clips_freezes_and_reports() -> None:
    """The update would use unclipped gradients, move the frozen layer, or log the norm after clipping."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    wrapper = wrapper_of(model, clip_grad_per_tensor=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}
    wrapper.frozen = list(model[1].parameters())
    wrapper.update_params(sum((p * gradients[name]).sum() for name, p in model.named_parameters()))
    total = sum(float(gradient.pow(2).sum()) for gradient in gradients.values()) ** 0.5
    assert wrapper.grad_norm == pytest.approx(total, rel=1e-6)
    for name, parameter in model.named_parameters():
        gradient = gradients[name]
        clipped = gradient * min(1.0, 0.5 / float(gradient.norm()))
        expected = before[name] if name.startswith("1.") else before[name] - clipped
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)


def test_global_clipping_is_the_other_option() -> None:
    """``clip_grad`` of MMEngine would be ignored by our wrapper."""
    model = nn.Linear(2, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    wrapper = wrapper_of(model, clip_grad={"max_norm": 0.5})
    wrapper.update_params(sum((10 * parameter).sum() for parameter in model.parameters()))
    moved = [a - b.detach() for a, b in zip(before, model.parameters(), strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_frozen_parameters_keep_their_optimizer_state() -> None:
    """AdamW would move the frozen last layer by its momentum or its weight decay."""
    model = nn.Linear(2, 2)
    cfg = {"type": "MSTOptimWrapper", "optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.5}}
    wrapper = MSTOptimWrapperConstructor(cfg)(model)
    for frozen in (False, True):
        wrapper.frozen = [model.weight] if frozen else []
        before = model.weight.detach().clone()
        wrapper.update_params(model(torch.ones(1, 2)).sum())
        assert torch.equal(model.weight.detach(), before) == frozen
    assert wrapper.optimizer.state[model.weight]["step"] == 1


def test_model_wrapped_for_several_processes() -> None:
    """Parameter names would begin with ``module.`` and the groups be empty."""
    outer = nn.Module()
    outer.module = nn.Linear(2, 2)
    groups = wrapper_of(outer).optimizer.param_groups
    assert [[p.ndim for p in group["params"]] for group in groups] == [[2], [1]]
    assert groups[1]["weight_decay"] == 0.0


def test_paramwise_settings_are_refused() -> None:
    """A paramwise_cfg in a pretraining config would be ignored."""
    with pytest.raises(ValueError, match="norm_decay_mult"):
        MSTOptimWrapperConstructor({"optimizer": {"type": "AdamW"}}, {"norm_decay_mult": 0})


def test_logged_norm_is_the_one_before_global_clipping() -> None:
    """With ``clip_grad`` the log would show the clipping threshold, and no explosion could be seen in it."""
    model = nn.Linear(2, 2)
    wrapper = wrapper_of(model, clip_grad={"max_norm": 0.5})
    wrapper.update_params(sum((10 * parameter).sum() for parameter in model.parameters()))
    assert wrapper.grad_norm == pytest.approx(600**0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("gradient", "skipped"), [(1.0, False), (math.inf, True), (-math.inf, True), (math.nan, True)]
)
def test_a_gradient_that_is_not_finite_moves_nothing(gradient: float, skipped: bool) -> None:
    """One infinite gradient would turn its weight, and then all others, into NaN."""
    weights = parameters_with([torch.tensor([gradient, 0.5]), torch.tensor([0.25])])
    wrapper = MSTOptimWrapper(torch.optim.SGD(weights, lr=1.0), clip_grad_per_tensor=3.0)
    wrapper.step()
    assert wrapper.skipped is skipped
    assert weights[1].item() == (0.0 if skipped else -0.25) and torch.isfinite(weights[0]).all()
