"""The closed-form head against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.quickstart.ridge import Moments


def by_lstsq(x: np.ndarray, y: np.ndarray, weight: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weighted ridge regression as a longer system of ordinary least squares: weights [D, C] of x, bias [C]."""
    mean = np.average(x, 0, weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, 0, weight))
    root, size = np.sqrt(weight)[:, None], x.shape[1]
    z = np.hstack([(x - mean) / deviation, np.ones((len(x), 1))])
    extra = np.hstack([np.sqrt(ridge * weight.sum()) * np.eye(size), np.zeros((size, 1))])
    system, right = np.vstack([root * z, extra]), np.vstack([root * y, np.zeros((size, y.shape[1]))])
    solution = np.linalg.lstsq(system, right, rcond=None)[0]
    found = solution[:-1] / deviation[:, None]
    return found, solution[-1] - mean @ found


@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 0.5])
def test_head_is_that_of_least_squares(ridge: float) -> None:
    """The scores of the table would be those of a head that is not the best one under its penalty."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, rng.uniform(0.1, 5, 6), (50, 6)) @ rng.normal(size=(6, 6))
    y, weight = rng.dirichlet(np.ones(4), 50), rng.uniform(0.1, 9, 50)
    moments = Moments(6, 4)
    for part in np.array_split(np.arange(50), 3):  # rows may come in any portions
        moments.add(*(torch.tensor(values[part]).float() for values in (x, y, weight)))
    head = moments.solve(ridge)
    expected, bias = by_lstsq(x, y, weight, ridge)
    np.testing.assert_allclose(head.weight, expected, rtol=2e-3, atol=5e-4)
    np.testing.assert_allclose(head.bias, bias, rtol=2e-3, atol=2e-3)


def test_constant_features_have_no_weight() -> None:
    """A network with a dead channel would divide by zero and score nothing but NaN."""
    x = torch.tensor([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    moments = Moments(2, 1)
    moments.add(x, x[:, :1] * 2 + 1, torch.ones(3))
    head = moments.solve(1e-9)
    assert head.weight[1].item() == 0
    assert (x @ head.weight + head.bias).flatten().tolist() == pytest.approx([3, 5, 9], abs=1e-4)


def test_nothing_to_fit_is_refused() -> None:
    """A head of NaN, or one without a solution, would be scored."""
    with pytest.raises(ValueError, match="weight 0"):
        Moments(2, 1).solve()
    moments = Moments(2, 1)
    moments.add(torch.ones(1, 2), torch.ones(1, 1), torch.ones(1))
    with pytest.raises(ValueError, match="positive ridge"):
        moments.solve(0)
