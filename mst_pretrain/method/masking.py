"""Which tokens the student does not see. Pure functions of tensors; True = hidden; [CLS] is never here."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runtime.errors import InvalidValue

_MODES = ("attention", "attention_reversed", "random", "random_equal_count", "none")


def attention_guided_mask(attention: Tensor, noise: Tensor, num: int, prob: float) -> Tensor:
    """MST's rule [summary]: the lowest 1/num share by attention are candidates, each hidden with probability p.

    Candidates are taken by rank (ties by index), so exactly ``floor(N / num)`` exist [ours].

    Args:
        attention: [B, N], any real dtype; larger = more attended.
        noise: [B, N] uniform in [0, 1), one draw per token.
        num: Candidates are ``floor(N / num)`` tokens, ``num >= 1``.
        prob: Bernoulli p in [0, 1].

    Returns:
        [B, N] bool.

    Raises:
        ValueError: Shapes differ.
        InvalidValue: ``num`` or ``prob`` is out of range.
    """
    _check(attention, noise)
    _check_probability("prob", prob)
    if num < 1:
        raise InvalidValue(f"num must be at least 1, got {num}")
    candidates = attention.shape[1] // num
    lowest = attention.argsort(dim=1, stable=True)[:, :candidates]
    is_candidate = torch.zeros_like(attention, dtype=torch.bool).scatter_(1, lowest, True)
    return is_candidate & (noise < prob)


def random_mask(noise: Tensor, ratio: float) -> Tensor:
    """BERT-style random masking: exactly ``floor(ratio * N)`` tokens, those with the smallest noise.

    Args:
        noise: [B, N] uniform in [0, 1).
        ratio: Share of tokens in [0, 1].

    Returns:
        [B, N] bool.
    """
    _check(noise, noise)
    _check_probability("ratio", ratio)
    count = int(ratio * noise.shape[1] + 1e-6)  # 0.29 * 100 is 28.999...
    chosen = noise.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(noise, dtype=torch.bool).scatter_(1, chosen, True)


def make_mask(
    mode: str,
    attention: Tensor,
    seeds: Tensor,
    *,
    num: int = 8,
    prob: float = 1.0,
    ratio: float = 0.15,
    unmasked_image_probability: float = 0.0,
) -> Tensor | None:
    """The student's mask for a batch. Row i depends on attention row i and seed i only.

    Args:
        mode: ``attention`` (guided), ``attention_reversed`` (the most attended instead of the least: a control),
            ``random`` (``ratio`` of the tokens), ``random_equal_count`` (as many as guided would, anywhere) or
            ``none``.
        attention: [B, h, w] from the teacher.
        seeds: [B] int64, one per view.
        num: See :func:`attention_guided_mask`.
        prob: See :func:`attention_guided_mask`.
        ratio: See :func:`random_mask`.
        unmasked_image_probability: Probability q that an image stays whole [code: iBOT].

    Returns:
        [B, h, w] bool, or None for mode ``none``.

    Raises:
        InvalidValue: Unknown mode or values out of range.
    """
    if mode not in _MODES:
        raise InvalidValue(f"masking mode '{mode}' is unknown; choose one of {', '.join(_MODES)}")
    _check_probability("unmasked_image_probability", unmasked_image_probability)
    if mode == "none":
        return None
    shape = attention.shape
    attention = attention.flatten(1)
    tokens = attention.shape[1]
    noise = seeded_uniform(seeds, 2 * tokens + 1)
    bernoulli, order, whole = noise[:, :tokens], noise[:, tokens : 2 * tokens], noise[:, -1:]
    if mode == "attention":
        mask = attention_guided_mask(attention, bernoulli, num, prob)
    elif mode == "attention_reversed":
        mask = attention_guided_mask(-attention, bernoulli, num, prob)
    elif mode == "random_equal_count":
        mask = attention_guided_mask(order, bernoulli, num, prob)
    else:
        mask = random_mask(order, ratio)
    return (mask & (whole >= unmasked_image_probability)).view(shape)


def seeded_uniform(seeds: Tensor, count: int) -> Tensor:
    """Uniform numbers as a pure function of (seed, position): the same on every device and in every batch.

    SplitMix64's finaliser over a counter, 24 bits kept so that float32 holds them exactly.

    Args:
        seeds: [B] int64.
        count: Numbers per seed.

    Returns:
        [B, count] float32 in [0, 1).
    """
    counter = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64)
    z = _mix(seeds.unsqueeze(1)) + counter * -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
    return _shift_right(_mix(z), 40).float() / 2**24


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    z = (z ^ _shift_right(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) right shift of int64."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _check(scores: Tensor, noise: Tensor) -> None:
    if scores.ndim != 2 or scores.shape != noise.shape:
        raise ValueError(f"expected two tensors [B, N], got {tuple(scores.shape)} and {tuple(noise.shape)}")


def _check_probability(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InvalidValue(f"{name} must be in [0, 1], got {value}")
