"""The whole method against an independent reference written from the equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_pretrain.method.masking import seeded_uniform
from mst_pretrain.method.mst import MST
from mst_pretrain.training.hooks import ScheduleHook, TeacherHook
from mst_pretrain.training.optim import MSTOptimWrapperConstructor

Randomize = Callable[[nn.Module, int], nn.Module]
Weights = dict[str, Tensor]
VIT = dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
HEAD = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8)
MASKED: dict[str, Any] = dict(
    masking=dict(mode="attention", num=2, prob=0.6), decoder=dict(width=8, min_width=4), lambda_rec=0.6
)
PLAIN: dict[str, Any] = dict(masking=dict(mode="none"), decoder=None)
STEPS, PER_EPOCH = 3, 2


# The reference: its own transformer, decoder, losses, optimizer and schedules, on dictionaries of weights.


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(x: Tensor, w: Weights, name: str, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]
        + w[f"{name}.bias"]
    )


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def vit(
    w: Weights, images: Tensor, hidden: Tensor | None = None, token: Tensor | None = None
) -> tuple[Tensor, ...]:
    """[CLS] feature [B, D], patch features [B, N, D], last block's [CLS] attention to patches [B, N]."""
    batch, _, height, width = images.shape
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    x = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    if hidden is not None and token is not None:
        x = x * ~hidden[:, :, None] + token * hidden[:, :, None]
    position = w["pos_embed"]
    if (height, width) != (32, 32):
        grid = position[:, 1:].view(1, 4, 4, 16).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (height // 8, width // 8), mode="bicubic", antialias=True)
        position = torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    x = torch.cat([w["cls_token"].expand(batch, -1, -1), x], 1) + position
    attention = torch.empty(0)
    for block in range(2):
        name = f"blocks.{block}"
        query, key, value = (
            linear(layer_norm(x, w, f"{name}.norm1"), w, f"{name}.attn.qkv")
            .view(batch, -1, 3, 2, 8)
            .unbind(2)
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(8)
        attention = scores.exp() / scores.exp().sum(-1, keepdim=True)
        mixed = torch.einsum("bhqk,bkhd->bqhd", attention, value).flatten(2)
        x = x + linear(mixed, w, f"{name}.attn.proj")
        inner = gelu(linear(layer_norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1"))
        x = x + linear(inner, w, f"{name}.mlp.fc2")
    x = layer_norm(x, w, "norm")
    return x[:, 0], x[:, 1:], attention[:, :, 0, 1:].mean(1)


def head(w: Weights, x: Tensor) -> Tensor:
    x = linear(gelu(linear(gelu(linear(x, w, "mlp.0")), w, "mlp.2")), w, "mlp.4")
    x = x / x.pow(2).sum(-1, keepdim=True).sqrt()
    direction = w["last_layer.parametrizations.weight.original1"]
    prototypes = w["last_layer.parametrizations.weight.original0"] * direction
    return x @ (prototypes / direction.pow(2).sum(1, keepdim=True).sqrt()).T


def decode(w: Weights, tokens: Tensor) -> Tensor:
    """1x1 conv; three times deconvolution x2, batch norm, ReLU; 3x3 conv."""
    x = linear(tokens, {"c.weight": w["0.weight"].flatten(1), "c.bias": w["0.bias"]}, "c")
    x = x.view(-1, 4, 4, 8)  # [B, h, w, C]
    for layer in (1, 4, 7):
        x = torch.einsum("bhwc,cdij->bhiwjd", x, w[f"{layer}.weight"]).flatten(3, 4).flatten(1, 2)
        mean = x.mean((0, 1, 2))
        x = (x - mean) / ((x - mean).pow(2).mean((0, 1, 2)) + 1e-5).sqrt()
        x = (x * w[f"{layer + 1}.weight"] + w[f"{layer + 1}.bias"]).clamp(min=0)
    return F.conv2d(x.permute(0, 3, 1, 2), w["10.weight"], w["10.bias"], padding=1)


def below(weights: Weights, prefix: str) -> Weights:
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


def hidden_tokens(attention: Tensor, seeds: Tensor, num: int, prob: float) -> Tensor:
    """Of each view the lowest 1/num share by attention, each with probability p; [V * B, N]."""
    views = [int(seed) * 2 + view for view in range(2) for seed in seeds]
    noise = seeded_uniform(torch.tensor(views), attention.shape[1])
    hidden = torch.zeros_like(attention, dtype=torch.bool)
    for row, values in enumerate(attention.tolist()):
        ranked = sorted(range(len(values)), key=lambda token: values[token])
        for token in ranked[: len(values) // num]:
            hidden[row, token] = noise[row, token] < prob
    return hidden


def reference_loss(
    w: Weights,
    teacher: Weights,
    center: Tensor,
    batch: dict[str, Tensor],
    tau_t: float,
    method: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Loss of one batch, and the teacher's logits."""
    images = torch.cat(list(batch["global_views"]))
    count = batch["global_views"].shape[1]
    with torch.no_grad():
        cls, _, attention = vit(below(teacher, "backbone."), images)
        targets = head(below(teacher, "head."), cls)
    backbone = below(w, "student.backbone.")
    hidden = None
    if method["masking"]["mode"] == "attention":
        hidden = hidden_tokens(attention, batch["seeds"], method["masking"]["num"], method["masking"]["prob"])
    cls, patches, _ = vit(backbone, images, hidden, w.get("mask_token"))
    features = [cls, *(vit(backbone, crop)[0] for crop in batch["local_views"])]
    crops = head(below(w, "student.head."), torch.cat(features)).view(-1, count, 24)
    terms = []
    for v, view in enumerate(targets.view(2, count, 24)):
        q = ((view - center) / tau_t).exp()
        q = q / q.sum(1, keepdim=True)
        for s, crop in enumerate(crops):
            p = (crop / 0.1).exp()
            if s != v:
                terms.append(-(q * (p / p.sum(1, keepdim=True)).log()).sum(1).mean())
    loss = sum(terms, torch.zeros(())) / len(terms)
    if method["decoder"] is not None:
        restored = decode(below(w, "decoder.layers."), patches)
        loss = loss + method["lambda_rec"] * (restored - images).abs().mean()
    return loss, targets


def cosine(base: float, final: float, step: int, warmup: int = 0) -> float:
    if step < warmup:
        return base * step / (warmup - 1)
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


def reference_training(
    weights: Weights, batches: list[dict[str, Tensor]], method: dict[str, Any], recipe: dict[str, Any]
) -> tuple[Weights, Weights, Tensor]:
    """Student (with mask token and decoder), teacher and centre after the steps."""
    frozen_at_start = "student.head.last_layer"
    trained = {
        key: value.clone().requires_grad_()
        for key, value in weights.items()
        if not key.startswith("teacher.")
    }
    teacher = {key: value.clone() for key, value in below(weights, "student.").items()}
    center = torch.zeros(24, dtype=torch.float64)
    first: Weights = {}
    second: Weights = {}
    age = dict.fromkeys(trained, 0)
    for step, batch in enumerate(batches):
        warmup = recipe["warmup_epochs"] * PER_EPOCH
        lr = cosine(recipe["base_lr"] * 4 / 256, recipe["final_lr"], step, warmup)
        tau_t = 0.04 if step < PER_EPOCH else 0.07  # a warm-up of one epoch
        loss, targets = reference_loss(trained, teacher, center, batch, tau_t, method)
        names = [key for key in trained if recipe["free_norm"] or not key.endswith("original0")]
        gradients = dict(zip(names, torch.autograd.grad(loss, [trained[key] for key in names]), strict=True))
        for key, gradient in gradients.items():
            if key.startswith(frozen_at_start) and step < PER_EPOCH:
                continue
            length = gradient.pow(2).sum().sqrt()
            gradient = gradient * min(1.0, recipe["clip"] / (float(length) + 1e-6))
            age[key] += 1
            first[key] = 0.9 * first.get(key, 0) + 0.1 * gradient
            second[key] = 0.999 * second.get(key, 0) + 0.001 * gradient**2
            mean, square = first[key] / (1 - 0.9 ** age[key]), second[key] / (1 - 0.999 ** age[key])
            decay = 0.0 if key.endswith(".bias") or gradient.ndim == 1 else cosine(0.04, 0.4, step)
            with torch.no_grad():
                trained[key].mul_(1 - lr * decay).sub_(lr * mean / (square.sqrt() + 1e-8))
        momentum = cosine(0.9, 1.0, step)
        for key in teacher:
            teacher[key] = momentum * teacher[key] + (1 - momentum) * trained[f"student.{key}"].detach()
        center = 0.9 * center + 0.1 * targets.mean(0)
    return trained, teacher, center


# The code under test, driven by its own hooks and optimizer wrapper.


def model_of(
    randomize: Randomize, backbone: dict[str, Any], method: dict[str, Any], free_norm: bool = True
) -> MST:
    """Every weight drawn; the teacher equal to the student."""
    model = MST(backbone, {**HEAD, "norm_last_layer": not free_norm}, **method)
    randomize(model, 0)
    model.teacher.load_state_dict(model.student.state_dict())
    return model.double().train()


def batch_of(count: int, locals_: int, seed: int, size: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    return {
        "global_views": torch.randn(2, count, 3, size, size, **draw),  # type: ignore[call-overload]
        "local_views": torch.randn(locals_, count, 3, size // 2, size // 2, **draw),  # type: ignore[call-overload]
        "seeds": torch.randint(2**60, (count,), generator=generator),
    }


def train(model: MST, batches: list[dict[str, Tensor]], recipe: dict[str, Any]) -> None:
    wrapper = MSTOptimWrapperConstructor(
        {"type": "MSTOptimWrapper", "optimizer": {"type": "AdamW"}, "clip_grad_per_tensor": recipe["clip"]}
    )(model)
    keys = ("base_lr", "final_lr", "warmup_epochs")
    schedule, teacher = (
        ScheduleHook(
            **{key: recipe[key] for key in keys},
            weight_decay=(0.04, 0.4),
            momentum=(0.9, 1.0),
            teacher_temperature=(0.04, 0.07),
            teacher_temperature_epochs=1,
            freeze_last_layer_epochs=1,
        ),
        TeacherHook(),
    )
    runner: Any = SimpleNamespace(
        model=model,
        optim_wrapper=wrapper,
        hooks=[schedule, teacher],
        train_loop=SimpleNamespace(schedule_iters=STEPS, iters_per_epoch=PER_EPOCH, global_batch=4),
        logger=SimpleNamespace(info=print),
        message_hub=SimpleNamespace(update_scalars=lambda values: None),
        iter=0,
        work_dir="",
    )
    for hook in (schedule, teacher):
        hook.before_train(runner)
    for runner.iter, batch in enumerate(batches):
        schedule.before_train_iter(runner, runner.iter)
        loss, logged = model.parse_losses(model.loss(**batch))
        wrapper.update_params(loss)
        teacher.after_train_iter(runner, runner.iter, outputs={"loss": logged["loss"].detach()})


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("method", [MASKED, PLAIN], ids=["mst", "dino"])
@pytest.mark.parametrize(("count", "locals_"), [(1, 2), (3, 2), (2, 0)])
@pytest.mark.parametrize(
    "recipe", [{"warmup_epochs": 0, "free_norm": True}, {"warmup_epochs": 1, "free_norm": False}]
)
def test_three_steps_are_the_equations(
    randomize: Randomize, method: dict[str, Any], count: int, locals_: int, recipe: dict[str, Any]
) -> None:
    """Some part of the method would differ from its equations; with mask and decoder off, from DINO."""
    recipe = {"base_lr": 0.5, "final_lr": 1e-3, "clip": 0.3, **recipe}
    model = model_of(randomize, VIT, method, recipe["free_norm"])
    batches = [batch_of(count, locals_, seed) for seed in range(STEPS)]
    trainable = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    expected, teacher, center = reference_training(trainable, batches, method, recipe)
    train(model, batches, recipe)
    close: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
    for name, parameter in model.named_parameters():
        if not name.startswith("teacher."):
            torch.testing.assert_close(parameter.detach(), expected[name].detach(), msg=name, **close)
            moved = not torch.equal(parameter.detach(), trainable[name])
            assert moved or (name.endswith("original0") and not recipe["free_norm"]), f"{name} did not move"
    for name, parameter in model.teacher.named_parameters():
        torch.testing.assert_close(parameter, teacher[name], msg=f"teacher.{name}", **close)
    torch.testing.assert_close(model.distillation.center, center, **close)


@pytest.mark.usefixtures("double_precision")
def test_losses_have_their_weights(randomize: Randomize) -> None:
    """The total would weigh distillation and restoration otherwise than the config says."""
    batch = batch_of(2, 2, 7)
    one = model_of(randomize, VIT, MASKED | {"lambda_rec": 1.0}).loss(**batch)
    weighted = model_of(randomize, VIT, MASKED | {"lambda_ce": 0.25, "lambda_rec": 3.0}).loss(**batch)
    assert weighted["loss_ce"].item() == pytest.approx(0.25 * one["loss_ce"].item(), rel=1e-12)
    assert weighted["loss_rec"].item() == pytest.approx(3 * one["loss_rec"].item(), rel=1e-12)
    assert {key for key in one if "loss" in key} == {"loss_ce", "loss_rec"}
