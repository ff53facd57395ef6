"""Precision, recall, density and coverage against scikit-learn and their expectations."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from osmotic.metrics import distances, manifold


def by_scikit_learn(real, samples, k, k_density):
    """The definitions, neighbour by neighbour."""

    def radii(x, k):
        return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]

    gaps = np.linalg.norm(real[:, None] - samples, axis=2)
    inside = gaps <= radii(real, k_density)[:, None]
    return (
        (gaps <= radii(real, k)[:, None]).any(0).mean(),
        (gaps <= radii(samples, k)).any(1).mean(),
        inside.sum(0).mean() / k_density,
        inside.any(1).mean(),
    )


@pytest.mark.parametrize(("k", "k_density"), [(3, 5), (1, 1), (6, 2)])
@pytest.mark.parametrize("count", [90, 160])
def test_scikit_learn_agrees(k, k_density, count, monkeypatch):
    monkeypatch.setattr(distances, "BUDGET", 3000)  # many blocks
    rng = np.random.default_rng(k)
    real, samples = rng.normal(size=(120, 4)), rng.normal(size=(count, 4)) * 1.3 + 0.5
    found = manifold(real, samples, k, k_density)
    truth = by_scikit_learn(real, samples, k, k_density)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(truth, abs=1e-12)
    assert 0.1 < found.precision < 1


def test_the_same_set_is_perfect_even_far_from_zero_and_with_copies():
    x = np.random.default_rng(0).normal(size=(200, 8)) + 1e3
    found = manifold(x, x)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    x = np.tile(x[:25], (8, 1))  # all radii are 0
    found = manifold(x, x[::-1])
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_copies_are_at_distance_zero_and_neighbours_are_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 300)) + 1e3
    gaps = distances.squared(x, x)
    assert (np.diag(gaps) == 0).all()
    assert np.allclose(gaps, cdist(x, x, "sqeuclidean"), rtol=1e-4)
    assert (distances.squared(x, x + 1e-2) > 0).all()


def test_a_lost_mode_costs_recall_and_coverage_its_share():
    rng = np.random.default_rng(0)
    real, samples = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2))
    real[:300] += 100
    whole, lost = manifold(real[300:], samples[:700]), manifold(real, samples)
    assert lost.precision == pytest.approx(manifold(real[300:], samples).precision)
    assert lost.precision > 0.9
    assert lost.recall == pytest.approx(0.7 * manifold(real[300:], samples).recall)
    assert abs(lost.coverage - 0.7 * whole.coverage) < 0.05
    invented = manifold(samples, real)
    assert invented.precision == pytest.approx(lost.recall)
    assert invented.recall == pytest.approx(lost.precision)


@pytest.mark.parametrize(("k", "counts"), [(5, (200, 200)), (1, (200, 200)), (3, (150, 400))])
def test_expectations_for_the_same_law(k, counts):
    rng, trials = np.random.default_rng(0), 300
    n, m = counts
    found = [manifold(rng.normal(size=(n, 3)), rng.normal(size=(m, 3)), 3, k) for _ in range(trials)]
    coverage, density = np.array([f.coverage for f in found]), np.array([f.density for f in found])
    i = np.arange(1, k + 1)
    truth = 1 - np.prod((n - i) / (m + n - i))
    assert abs(coverage.mean() - truth) < 4 * coverage.std() / np.sqrt(trials)
    if n == m:
        assert truth == pytest.approx(1 - 0.5**k, abs=0.01)
    # A fresh point is among the k nearest to a real one with probability k / n, which is k / (k n) times n real ones.
    assert abs(density.mean() - 1) < 4 * density.std() / np.sqrt(trials)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="k >= 1"):
        manifold(np.ones((9, 2)), np.ones((9, 2)), 0)
    with pytest.raises(ValueError, match="real data must be at least 6"):
        manifold(np.ones((5, 2)), np.ones((9, 2)))
