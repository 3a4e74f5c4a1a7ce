"""The closed-form head against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.quickstart.ridge import Moments


def by_lstsq(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression as a longer system of ordinary least squares: weights [D, C] of x itself, bias [C]."""
    mean, deviation = x.mean(0), x.std(0)
    z = (x - mean) / deviation
    extra = np.sqrt(ridge * len(x)) * np.eye(x.shape[1])
    system = np.block([[z, np.ones((len(x), 1))], [extra, np.zeros((x.shape[1], 1))]])
    solution = np.linalg.lstsq(system, np.vstack([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]
    weight = solution[:-1] / deviation[:, None]
    return weight, solution[-1] - mean @ weight


@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 0.5])
def test_head_is_that_of_least_squares(ridge: float) -> None:
    """The scores of the table would be those of a head that is not the best one under its penalty."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, rng.uniform(0.1, 5, 6), (50, 6)) @ rng.normal(size=(6, 6))
    y = rng.dirichlet(np.ones(4), 50)
    moments = Moments(6, 4)
    for part in np.array_split(np.arange(50), 3):  # rows may come in any portions
        moments.add(torch.tensor(x[part]).float(), torch.tensor(y[part]).float())
    head = moments.solve(ridge)
    weight, bias = by_lstsq(x, y, ridge)
    np.testing.assert_allclose(head.weight, weight, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(head.bias, bias, rtol=2e-3, atol=2e-4)


def test_constant_features_have_no_weight() -> None:
    """A network with a dead channel would divide by zero and score nothing but NaN."""
    x = torch.tensor([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    moments = Moments(2, 1)
    moments.add(x, x[:, :1] * 2 + 1)
    head = moments.solve(1e-9)
    assert head.weight[1].item() == 0
    assert (x @ head.weight + head.bias).flatten().tolist() == pytest.approx([3, 5, 9], abs=1e-4)


def test_nothing_to_fit_is_refused() -> None:
    """A head of NaN, or one without a solution, would be scored."""
    with pytest.raises(ValueError, match="0 rows"):
        Moments(2, 1).solve()
    moments = Moments(2, 1)
    moments.add(torch.ones(1, 2), torch.ones(1, 1))
    with pytest.raises(ValueError, match="positive ridge"):
        moments.solve(0)
