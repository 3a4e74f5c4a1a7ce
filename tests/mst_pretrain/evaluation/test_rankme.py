"""RankMe beside its formula, and on features whose rank is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mst_pretrain.evaluation.rankme import FeatureGram


def rankme(features: torch.Tensor, parts: int = 1) -> float:
    sums = FeatureGram()
    for part in features.chunk(parts):
        sums.add(part)
    assert sums.rows == len(features)
    return sums.rankme()


def test_rankme_is_the_papers_formula() -> None:
    """Another number would be called RankMe, or it would depend on how many steps the features came in."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 12)) @ np.diag(np.linspace(3, 0.01, 12)) + 0.7
    singular = np.linalg.svd(features, compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert 2 < expected < 11
    assert rankme(torch.from_numpy(features)) == pytest.approx(expected, rel=1e-9)
    assert rankme(torch.from_numpy(features), parts=7) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_features_of_a_known_rank(rank: int) -> None:
    """A collapsed run would not be told from one whose features use all directions."""
    generator = torch.Generator().manual_seed(rank)
    directions = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q[:rank]
    features = torch.linalg.qr(torch.randn(400, rank, generator=generator)).Q @ directions
    assert rankme(features) == pytest.approx(rank, abs=2e-3)
    assert rankme(torch.zeros(5, 16)) == pytest.approx(1, abs=1e-3)


def test_no_features_are_no_rank() -> None:
    """A run that has measured nothing would show a number."""
    with pytest.raises(ValueError, match="no features"):
        FeatureGram().rankme()
