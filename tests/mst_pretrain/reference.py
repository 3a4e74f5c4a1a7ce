"""MST's training as loops over its equations, in float64. Knows nothing of :mod:`mst_pretrain`.

Only the blocks of the trunk and the decoder's convolutions are library code, run by timm and torch themselves:
attention is read from timm's softmax, tokens are hidden by a hook on its patch projection.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = dict[str, Tensor]
Batch = dict[str, Tensor]

WORD = 2**64 - 1


def mix(z: int) -> int:
    """SplitMix64's finaliser."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def uniform(seed: int, count: int) -> list[float]:
    """Top 24 bits of the SplitMix64 stream that starts at the mixed seed."""
    start = mix(seed & WORD)
    return [(mix(start + n * 0x9E3779B97F4A7C15 & WORD) >> 40) / 2**24 for n in range(1, count + 1)]


def hidden_tokens(attention: list[list[float]], seeds: list[int], masking: dict[str, Any]) -> list[list[int]]:
    """Numbers of the hidden tokens of each view."""
    hidden: list[list[int]] = []
    for row, seed in zip(attention, seeds, strict=True):
        count, mode = len(row), masking["mode"]
        draws = uniform(seed, 2 * count + 1)
        bernoulli, order, whole = draws[:count], draws[count:-1], draws[-1]
        ranked = sorted(range(count), key=(row if mode == "attention" else order).__getitem__)
        if mode == "random":
            chosen = ranked[: math.floor(masking["ratio"] * count)]
        else:
            candidates = ranked[: math.floor(count / masking["num"])]
            chosen = [token for token in candidates if bernoulli[token] < masking["prob"]]
        hidden.append([] if whole < masking.get("unmasked_image_probability", 0.0) else chosen)
    return hidden


def build(arguments: dict[str, Any], sizes: dict[str, Any]) -> Any:
    """The timm model that takes images of any size."""
    shape = {key: value for key, value in arguments.items() if key != "name"}
    return timm.create_model(arguments["name"], num_classes=0, **sizes, **shape).double().train()


class Trunk:
    """A timm model with fused attention off in its last block, and what its softmax and its tokens are."""

    def __init__(self, arguments: dict[str, Any], weights: Weights) -> None:
        self.swin = arguments["name"].startswith("swin")
        self.model = build(arguments, {"strict_img_size" if self.swin else "dynamic_img_size": not self.swin})
        self.model.load_state_dict(weights, strict=False)  # but for the tables that timm computes
        assert set(weights) == {name for name, _ in self.model.named_parameters()}
        last = (self.model.layers[-1] if self.swin else self.model).blocks[-1]
        last.attn.fused_attn = False
        last.attn.attn_drop.register_forward_hook(self._see)
        self.model.patch_embed.register_forward_hook(self._hide)
        self.hidden: list[list[int]] | None = None
        self.token: Any = None

    def _see(self, module: nn.Module, given: Any, softmax: Tensor) -> None:
        self.softmax = softmax.detach()

    def _hide(self, module: nn.Module, given: Any, tokens: Tensor) -> Tensor:
        if self.hidden is None:
            return tokens
        tokens, unit = tokens.clone(), 8 if self.swin else 1
        for image, units in enumerate(self.hidden):
            for number in units:
                top, left = (unit * index for index in divmod(number, tokens.shape[2] // unit))
                tokens[image, top : top + unit, left : left + unit] = self.token
        return tokens

    def __call__(
        self, images: Tensor, hidden: list[list[int]] | None = None, token: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Global features [B, D] and the last grid [B, D, h, w]."""
        self.hidden, self.token = hidden, token
        x = self.model.forward_features(images)
        if self.swin:
            return x.sum((1, 2)) / (x.shape[1] * x.shape[2]), x.permute(0, 3, 1, 2)
        side = math.isqrt(x.shape[1] - 1)
        return x[:, 0], x[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    def attention(self) -> list[list[float]]:
        """ViT: the [CLS] row without [CLS], mean over heads. Swin: mean over heads and queries."""
        rows = []
        for heads in self.softmax.tolist():
            queries = [
                row if self.swin else row[1:] for head in heads for row in (head if self.swin else head[:1])
            ]
            rows.append([sum(column) / len(queries) for column in zip(*queries, strict=True)])
        return rows


def project(w: Weights, x: Tensor, norm: str) -> Tensor:
    """Linear (BN) GELU, twice; linear; unit length; prototypes of lengths original0."""
    step = 2 if norm == "none" else 3
    for layer in (0, step):
        x = F.linear(x, w[f"mlp.{layer}.weight"], w.get(f"mlp.{layer}.bias"))
        if norm == "bn":
            x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
            x = x * w[f"mlp.{layer + 1}.weight"] + w[f"mlp.{layer + 1}.bias"]
        x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
    x = F.linear(x, w[f"mlp.{2 * step}.weight"], w[f"mlp.{2 * step}.bias"])
    x = x / x.pow(2).sum(1, keepdim=True).sqrt()
    direction, name = w["last_layer.parametrizations.weight.original1"], "last_layer.parametrizations.weight"
    return x @ (w[f"{name}.original0"] * direction / direction.pow(2).sum(1, keepdim=True).sqrt()).T


def decode(w: Weights, x: Tensor) -> Tensor:
    """1x1 convolution; deconvolution x2, BN, ReLU for each halving of the stride; 3x3 convolution."""
    x = F.conv2d(x, w["layers.0.weight"], w["layers.0.bias"])
    last = max(int(name.split(".")[1]) for name in w)
    for layer in range(1, last, 3):
        x = F.conv_transpose2d(x, w[f"layers.{layer}.weight"], stride=2)
        scale, shift = w[f"layers.{layer + 1}.weight"], w[f"layers.{layer + 1}.bias"]
        x = F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-5).clamp(min=0)
    return F.conv2d(x, w[f"layers.{last}.weight"], w[f"layers.{last}.bias"], padding=1)


def cross_entropy(
    student: Tensor, teacher: Tensor, center: list[float], tau_s: float, tau_t: float
) -> Tensor:
    """-sum_k q[k] log p[k], mean over images and over the pairs of a global view and another crop."""
    terms = []
    for v, view in enumerate(teacher.tolist()):
        for s, crop in enumerate(student):
            for image in range(len(crop) if s != v else 0):
                logits = [(t - c) / tau_t for t, c in zip(view[image], center, strict=True)]
                powers = [math.exp(logit - max(logits)) for logit in logits]
                log_sum = torch.stack([(u / tau_s).exp() for u in crop[image]]).sum().log()
                terms += [
                    -power / sum(powers) * (u / tau_s - log_sum)
                    for power, u in zip(powers, crop[image], strict=True)
                ]
    return torch.stack(terms).sum() / (len(terms) / student.shape[-1])


def cosine_array(total: int, ends: tuple[float, float], warmup: int = 0) -> np.ndarray:
    """One value per iteration: a line from 0 over the warm-up, then half a cosine."""
    steps = np.arange(total - warmup) / (total - warmup)
    tail = ends[1] + (ends[0] - ends[1]) * (1 + np.cos(np.pi * steps)) / 2
    return np.concatenate([np.linspace(0, ends[0], warmup), tail])


def below(weights: Weights, prefix: str) -> Weights:
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


def training(
    weights: Weights,
    center: list[float],
    steps: list[list[Batch]],
    method: dict[str, Any],
    recipe: dict[str, Any],
) -> tuple[Weights, list[float], list[float]]:
    """All weights and the centre after the steps, and the loss of each step."""
    networks = {
        name: Trunk(method["backbone"], below(weights, f"{name}.backbone."))
        for name in ("student", "teacher")
    }
    w = {key: value.clone().requires_grad_(not key.startswith("teacher.")) for key, value in weights.items()}
    for name, trunk in networks.items():
        trunk.model.requires_grad_(name == "student")
        w.update({f"{name}.backbone.{key}": value for key, value in trunk.model.named_parameters()})
    total_steps, per_epoch = recipe["total"], recipe["per_epoch"]
    settings, batch_size = recipe["schedule"], sum(len(batch["seeds"]) for batch in steps[0])
    lr = settings["base_lr"] * batch_size / settings.get("base_batch", 256)
    lrs = cosine_array(total_steps, (lr, settings["final_lr"]), int(settings["warmup_epochs"] * per_epoch))
    decays, momenta = (
        cosine_array(total_steps, settings["weight_decay"]),
        cosine_array(total_steps, settings["momentum"]),
    )
    warm, (cold, hot) = settings["teacher_temperature_epochs"], settings["teacher_temperature"]
    by_epoch = np.concatenate([np.linspace(cold, hot, warm), np.full(total_steps // per_epoch - warm, hot)])
    temperatures = by_epoch.repeat(per_epoch)
    first, second, age = dict.fromkeys(w, 0.0), dict.fromkeys(w, 0.0), dict.fromkeys(w, 0)
    losses: list[float] = []
    for step, batches in enumerate(steps):
        total, seen = torch.zeros((), dtype=torch.float64), []
        for batch in batches:
            images, count = torch.cat(list(batch["global_views"])), len(batch["seeds"])
            with torch.no_grad():
                features, _ = networks["teacher"](images)
                targets = project(below(w, "teacher.head."), features, recipe["head"]["norm"])
            hidden = None
            if method["masking"]["mode"] != "none":
                seeds = [2 * int(seed) + view for view in range(2) for seed in batch["seeds"]]
                hidden = hidden_tokens(networks["teacher"].attention(), seeds, method["masking"])
            features, grid = networks["student"](images, hidden, w.get("mask_token"))
            crops = [features, *(networks["student"](crop)[0] for crop in batch["local_views"])]
            logits = project(below(w, "student.head."), torch.cat(crops), recipe["head"]["norm"]).unflatten(
                0, (-1, count)
            )
            tau_s = recipe["distillation"]["student_temperature"]
            ce = cross_entropy(
                logits, targets.unflatten(0, (2, count)), center, tau_s, float(temperatures[step])
            )
            total = total + recipe["weights"][0] * ce / len(batches)
            if method["decoder"]:
                error = (decode(below(w, "decoder."), grid) - images).abs().sum() / images.numel()
                total = total + recipe["weights"][1] * error / len(batches)
            seen += targets.tolist()
        losses.append(total.item())
        names = [key for key, value in w.items() if value.requires_grad]
        if recipe["head"]["norm_last_layer"]:
            names.remove("student.head.last_layer.parametrizations.weight.original0")
        gradients = torch.autograd.grad(total, [w[name] for name in names])
        frozen = step < settings["freeze_last_layer_epochs"] * per_epoch
        with torch.no_grad():
            for name, gradient in zip(names, gradients, strict=True):
                if frozen and "last_layer" in name:
                    continue
                norm = math.sqrt(sum(value**2 for value in gradient.flatten().tolist()))
                gradient = gradient * min(1.0, recipe["clip"] / (norm + 1e-6))
                age[name] += 1
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                mean, square = first[name] / (1 - 0.9 ** age[name]), second[name] / (1 - 0.999 ** age[name])
                decay = 0.0 if name.endswith(".bias") or gradient.ndim == 1 else decays[step]
                w[name].mul_(1 - lrs[step] * decay).sub_(lrs[step] * mean / (square**0.5 + 1e-8))
            for name in below(w, "teacher."):
                student = w[f"student.{name}"]
                w[f"teacher.{name}"].mul_(momenta[step]).add_((1 - momenta[step]) * student)
        keep = recipe["distillation"]["center_momentum"]
        means = [sum(column) / len(seen) for column in zip(*seen, strict=True)]
        center = [keep * old + (1 - keep) * mean for old, mean in zip(center, means, strict=True)]
    return {key: value.detach() for key, value in w.items()}, center, losses
