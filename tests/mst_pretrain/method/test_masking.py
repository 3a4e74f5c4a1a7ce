"""Which tokens are hidden: counts, order, independence, shares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mst_pretrain.method.masking import attention_guided_mask, make_mask, random_mask, seeded_uniform


def rows(batch: int, tokens: int, seed: int, levels: int | None = None) -> Tensor:
    """Attention of ``batch`` images; few ``levels`` make many ties."""
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        return torch.rand(batch, tokens, generator=generator)
    return torch.randint(levels, (batch, tokens), generator=generator).float()


@pytest.mark.parametrize("levels", [None, 3, 1])
@pytest.mark.parametrize(("tokens", "num"), [(196, 8), (49, 8), (16, 3), (5, 8), (7, 1)])
def test_candidates_are_the_least_attended(tokens: int, num: int, levels: int | None) -> None:
    """Ties would hide more than the share, or foreground would be hidden before background."""
    attention = rows(6, tokens, tokens, levels)
    mask = attention_guided_mask(attention, torch.zeros_like(attention), num, 1.0)
    for values, hidden in zip(attention.tolist(), mask.tolist(), strict=True):
        ranked = sorted(range(tokens), key=lambda index: (values[index], index))
        expected = set(ranked[: tokens // num])
        assert {index for index, is_hidden in enumerate(hidden) if is_hidden} == expected
        assert len(expected) == tokens // num
        rest = [values[index] for index in range(tokens) if index not in expected]
        assert all(values[index] <= min(rest, default=float("inf")) for index in expected)


def test_noise_decides_among_candidates() -> None:
    """A candidate would be hidden although its draw is above p, or a token hidden that is no candidate."""
    attention = torch.arange(8.0).repeat(1, 1)
    noise = torch.tensor([[0.1, 0.5, 0.49, 0.9, 0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[True, False, True, False, False, False, False, False]])
    assert torch.equal(attention_guided_mask(attention, noise, 2, 0.5), expected)


@pytest.mark.parametrize("prob", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("mode", ["attention", "random_equal_count"])
def test_share_of_hidden_candidates_is_binomial(mode: str, prob: float) -> None:
    """Bernoulli(p) would be another p: the share must lie within five standard deviations."""
    images, tokens, num = 400, 196, 8
    seeds = torch.arange(images)
    mask = make_mask(mode, rows(images, tokens, 1).view(-1, 14, 14), seeds, num=num, prob=prob)
    assert mask is not None and mask.shape == (images, 14, 14) and mask.dtype == torch.bool
    draws = images * (tokens // num)
    deviation = (draws * prob * (1 - prob)) ** 0.5
    assert abs(mask.sum().item() - draws * prob) < 5 * deviation


@pytest.mark.parametrize("mode", ["attention", "random_equal_count"])
def test_every_candidate_has_its_own_draw(mode: str) -> None:
    """Some ranks would be hidden more often than p, or the candidates of an image, or its two views, go together.

    Each of about 80 counts over 4,000 images of two views lies within 4.5 standard deviations; by chance one would
    not in 1 of 1,800 choices of the seeds, which are fixed.
    """
    images, tokens, num, prob = 4000, 40, 5, 0.3
    candidates = tokens // num
    attention = rows(2 * images, tokens, 8)
    seeds = torch.stack([torch.arange(images) * 2, torch.arange(images) * 2 + 1], 1).flatten()
    mask = make_mask(mode, attention.view(-1, 5, 8), seeds, num=num, prob=prob)
    everything = make_mask(mode, attention.view(-1, 5, 8), seeds, num=num, prob=1.0)
    assert mask is not None and everything is not None
    mask, everything = mask.flatten(1), everything.flatten(1)
    assert (everything.sum(1) == candidates).all() and not (mask & ~everything).any()
    draws = (
        mask[everything].view(-1, candidates).double()
    )  # by position; the number of draws is always the same

    def within(successes: Tensor, trials: int, share: float) -> bool:
        return bool((successes - trials * share).abs().max() < 4.5 * (trials * share * (1 - share)) ** 0.5)

    assert within(draws.sum(0), 2 * images, prob)
    if mode == "attention":
        by_rank = mask.gather(1, attention.argsort(1)[:, :candidates]).sum(0)
        assert within(by_rank, 2 * images, prob)
    both = draws.T @ draws  # pairs of candidates hidden together
    pairs = both[~torch.eye(candidates, dtype=torch.bool)]
    assert within(pairs, 2 * images, prob**2)
    assert within((draws[::2] * draws[1::2]).sum(0), images, prob**2)  # both views


def test_probability_one_and_zero() -> None:
    """p = 1 would leave candidates visible, p = 0 would hide some."""
    attention, seeds = rows(50, 196, 2).view(-1, 14, 14), torch.arange(50)
    everything = make_mask("attention", attention, seeds, num=8, prob=1.0)
    nothing = make_mask("attention", attention, seeds, num=8, prob=0.0)
    assert everything is not None and nothing is not None
    assert everything.sum((1, 2)).tolist() == [24] * 50 and not nothing.any()


@pytest.mark.parametrize("mode", ["attention", "random", "random_equal_count"])
def test_row_depends_on_its_own_attention_and_seed(mode: str) -> None:
    """An image's mask would change with its neighbours in the batch, with the rank or with the batch size."""
    attention, seeds = rows(12, 36, 3).view(-1, 6, 6), torch.arange(100, 112)
    settings: dict[str, Any] = dict(num=2, prob=0.5, ratio=0.3, unmasked_image_probability=0.3)
    mask = make_mask(mode, attention, seeds, **settings)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    permuted = make_mask(mode, attention[order], seeds[order], **settings)
    alone = [make_mask(mode, attention[i : i + 1], seeds[i : i + 1], **settings) for i in range(12)]
    assert mask is not None and permuted is not None
    assert torch.equal(mask[order], permuted)
    assert torch.equal(mask, torch.cat([row for row in alone if row is not None]))
    again, other = (
        make_mask(mode, attention, seeds, **settings),
        make_mask(mode, attention, seeds + 50, **settings),
    )
    assert again is not None and other is not None
    assert torch.equal(mask, again) and not torch.equal(mask, other)


def test_guidance_comes_from_the_attention() -> None:
    """Guided masks would ignore the attention, or random ones follow it."""
    seeds = torch.zeros(1, dtype=torch.int64)
    rising = torch.arange(36.0).view(1, 6, 6)
    for mode, equal in (("attention", False), ("random", True), ("random_equal_count", True)):
        one = make_mask(mode, rising, seeds, num=2, ratio=0.3)
        two = make_mask(mode, -rising, seeds, num=2, ratio=0.3)
        assert one is not None and two is not None
        assert torch.equal(one, two) == equal
    guided = make_mask("attention", rising, seeds, num=2)
    assert guided is not None and guided[0, :3].all() and not guided[0, 3:].any()


def test_equal_count_hides_as_many_as_guided() -> None:
    """The ablation would compare different numbers of hidden tokens."""
    attention, seeds = rows(64, 196, 4).view(-1, 14, 14), torch.arange(64)
    settings: dict[str, Any] = dict(num=8, prob=0.5, unmasked_image_probability=0.2)
    guided = make_mask("attention", attention, seeds, **settings)
    equal = make_mask("random_equal_count", attention, seeds, **settings)
    assert guided is not None and equal is not None and not torch.equal(guided, equal)
    assert abs(guided.sum().item() - equal.sum().item()) < 5 * (2 * 64 * 24 * 0.25) ** 0.5
    certain = make_mask("random_equal_count", attention, seeds, num=8, prob=1.0)
    assert certain is not None and certain.sum((1, 2)).tolist() == [24] * 64
    whole = [mask.any(2).any(1).logical_not() for mask in (guided, equal)]
    assert torch.equal(whole[0], whole[1])


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.15, 29), (0.5, 98), (1.0, 196)])
def test_random_hides_an_exact_share(ratio: float, count: int) -> None:
    """Random masking at 15 % would hide another number than BERT's, or favour some positions."""
    noise = seeded_uniform(torch.arange(500), 196)
    mask = random_mask(noise, ratio)
    assert mask.sum(1).tolist() == [count] * 500
    assert random_mask(noise[:1, :100], 0.29).sum() == 29  # 0.29 * 100 is 28.999... in floating point
    share = count / 196
    bound = 5 * (500 * share * (1 - share)) ** 0.5
    assert ((mask.sum(0) - 500 * share).abs() <= bound + 1e-6).all()


def test_share_of_whole_images() -> None:
    """The stabiliser would leave another share of the images unmasked, or parts of images."""
    attention, seeds = torch.ones(2000, 4, 4), torch.arange(2000)
    mask = make_mask("attention", attention, seeds, num=2, unmasked_image_probability=0.5)
    assert mask is not None
    counts = mask.sum((1, 2))
    assert set(counts.tolist()) == {0, 8}
    assert abs((counts == 0).sum().item() - 1000) < 5 * 500**0.5
    for q, expected in ((0.0, 8), (1.0, 0)):
        mask = make_mask("attention", attention, seeds, num=2, unmasked_image_probability=q)
        assert mask is not None and set(mask.sum((1, 2)).tolist()) == {expected}


def test_none_masks_nothing() -> None:
    """Plain DINO would see mask tokens."""
    assert make_mask("none", torch.ones(2, 4, 4), torch.arange(2)) is None


def test_uniform_numbers_are_uniform() -> None:
    """Bernoulli shares would be wrong for some seeds or positions, which come from consecutive integers."""
    numbers = seeded_uniform(torch.arange(1000), 400).double()
    assert numbers.shape == (1000, 400) and 0 <= numbers.min() and numbers.max() < 1
    deviation = (1 / 12) ** 0.5
    assert abs(numbers.mean() - 0.5) < 5 * deviation / 400_000**0.5
    assert ((numbers.mean(0) - 0.5).abs() < 5 * deviation / 1000**0.5).all()
    assert ((numbers.mean(1) - 0.5).abs() < 5 * deviation / 400**0.5).all()
    counts = torch.histc(numbers.float(), bins=64, min=0, max=1)
    chi_square = ((counts - 6250) ** 2 / 6250).sum()  # 63 degrees of freedom
    assert 63 - 5 * 126**0.5 < chi_square < 63 + 5 * 126**0.5
    centred = numbers - 0.5
    neighbours = (
        (centred[1:] * centred[:-1]).mean(),
        (centred[:, 1:] * centred[:, :-1]).mean(),
        (centred[1::2] * centred[::2]).mean(),  # the two views of one image
    )
    assert all(abs(12 * product) < 5 / 190_000**0.5 for product in neighbours)


def test_uniform_numbers_depend_on_the_seed_only() -> None:
    """A resumed run, another batch or a longer row would draw other masks."""
    seeds = torch.tensor([0, 1, 2**62, -5, 7])
    numbers = seeded_uniform(seeds, 50)
    assert numbers.dtype == torch.float32 and torch.equal(numbers, seeded_uniform(seeds, 50))
    assert torch.equal(numbers[3:4], seeded_uniform(seeds[3:4], 80)[:, :50])
    assert len({tuple(row) for row in numbers.tolist()}) == 5


@pytest.mark.parametrize(
    ("mode", "settings", "match"),
    [
        ("atention", {}, "atention"),
        ("attention", {"num": 0}, "num"),
        ("attention", {"prob": 1.5}, "prob.*1.5"),
        ("random", {"ratio": -0.1}, "ratio.*-0.1"),
        ("attention", {"unmasked_image_probability": 2}, "unmasked_image_probability.*2"),
    ],
)
def test_impossible_settings_are_refused(mode: str, settings: dict[str, Any], match: str) -> None:
    """A typo in a config would train without masking."""
    with pytest.raises(ValueError, match=match):
        make_mask(mode, torch.ones(2, 4, 4), torch.arange(2), **settings)


def test_shapes_must_agree() -> None:
    """Noise of another shape would broadcast over the batch."""
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(1, 4\)"):
        attention_guided_mask(torch.ones(2, 4), torch.ones(1, 4), 2, 1.0)
