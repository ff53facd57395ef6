"""Wasserstein distances against scipy, the exact assignment and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from osmotic.metrics import sliced, wasserstein


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 7), m=st.integers(1, 7), seed=st.integers(0, 2**31))
def test_it_is_the_cheapest_transport(n, m, seed):
    """The linear program over all plans, for any two counts."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(size=m)
    rows = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    plan = linprog(
        (cdist(x[:, None], y[:, None]) ** 2).ravel(),
        A_eq=np.concatenate(rows),
        b_eq=np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)]),
    )
    assert wasserstein(x, y) == pytest.approx(np.sqrt(max(plan.fun, 0)), abs=1e-6)


def test_quantiles_of_known_laws():
    """A grid of quantiles of N(1, 2^2) against one of N(0, 1) of another count: ``sqrt(1 + (2 - 1)^2)``."""
    from scipy.stats import norm

    x, y = (norm.ppf((np.arange(n) + 0.5) / n) for n in (40_000, 25_000))
    assert wasserstein(1 + 2 * x, y) == pytest.approx(np.sqrt(2), rel=1e-3)


def test_repeating_a_set_changes_nothing():
    x, y = np.random.default_rng(0).normal(size=(2, 30, 4))
    assert sliced(np.repeat(x, 3, 0), y) == pytest.approx(sliced(x, y), rel=1e-12)
    assert sliced(x, x[::-1]) == 0


def test_a_shift_is_seen_along_each_direction():
    """``W2(theta x, theta (x + d)) = |theta d|``, whose mean square is ``|d|^2 / D``."""
    x, shift = np.random.default_rng(0).normal(size=(50, 6)), np.arange(6.0)
    found = [sliced(x, x + shift, projections=100, seed=i) ** 2 for i in range(50)]
    assert abs(np.mean(found) - (shift**2).sum() / 6) < 4 * np.std(found) / np.sqrt(50)
    line = sliced(x[:, :1], x[:, :1] * 2 + 5, projections=1)
    assert line == pytest.approx(wasserstein(x[:, :1], x[:, :1] * 2 + 5))


def test_two_gaussians():
    """``W2(theta x, theta y)^2 = |theta d|^2 + (s - 1)^2``, plus the bias of finite sets, which equal laws show."""
    rng = np.random.default_rng(0)
    x, y, z = (rng.normal(size=(4000, 5)) for _ in range(3))
    shift = np.array([1.0, 0, 0, 0, 0])
    found = sliced(3 * x + shift, y, projections=2000) ** 2
    bias = sliced(x, z, projections=2000) ** 2
    assert bias < 0.01
    # Directions: Var |theta_1|^2 = 2 (D - 1) / (D^2 (D + 2)); samples: the deviation of a deviation.
    error = np.sqrt(2 * 4 / (25 * 7) / 2000) + 2 * 2 * 3 / np.sqrt(2 * 4000)
    assert abs(found - (1 / 5 + 4)) < 4 * error + 5 * bias


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="use sliced"):
        wasserstein(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="At least one direction"):
        sliced(np.ones((3, 2)), np.ones((3, 2)), projections=0)
