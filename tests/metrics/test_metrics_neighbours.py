"""Memory of the training set: authenticity's known values, and distances in units of held-out data."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from osmotic.metrics import authentic, authenticity, distance_ratios


def test_the_definition_pair_by_pair():
    rng = np.random.default_rng(0)
    samples, training = rng.normal(size=(60, 3)), rng.normal(size=(80, 3))
    to, among = cdist(samples, training), cdist(training, training) + np.diag(np.full(80, np.inf))
    truth = [gaps.min() >= among[gaps.argmin()].min() for gaps in to]
    assert np.array_equal(authentic(samples, training), truth)
    assert authenticity(samples, training) == np.mean(truth)


@pytest.mark.parametrize(
    ("width", "mutual"), [(1, 2 / 3), (2, 6 * np.pi / (8 * np.pi + 3 * np.sqrt(3)))], ids=["line", "plane"]
)
def test_fresh_draws_reach_one_minus_the_share_of_mutual_neighbours(width, mutual):
    """Two points are each other's nearest with a known probability (Cox 1981), on a torus without edges."""
    rng = np.random.default_rng(0)
    trials, found = 60, []
    for _ in range(trials):
        training = rng.random((200, width))
        # The torus' copies all around, and samples in the middle only.
        shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * width), -1).reshape(-1, width)
        wrapped = (training[:, None] + shifts).reshape(-1, width)
        found.append(authenticity(rng.random((100, width)), wrapped))
    assert abs(np.mean(found) - (1 - mutual)) < 4 * np.std(found) / np.sqrt(trials)


def test_copies_are_never_authentic():
    x = np.random.default_rng(0).normal(size=(100, 16)) + 1e4
    assert authenticity(x, x) == 0
    assert authenticity(x, np.concatenate([x, x])) == 0
    assert authenticity(x + 1e3, x) == 1


def test_ratios_of_fresh_draws_are_the_held_outs_and_shrink_with_copying():
    rng = np.random.default_rng(0)
    training, held_out, fresh = (rng.normal(size=(n, 6)) for n in (400, 1000, 1000))
    found = distance_ratios(fresh, held_out, training)
    assert np.median(found.held_out) == 1
    assert abs(np.mean(found.samples < 1) - 0.5) < 5 * np.sqrt(2 * 0.25 / 1000)
    near = training[rng.integers(400, size=1000)] + 1e-3 * rng.normal(size=(1000, 6))
    assert np.median(distance_ratios(near, held_out, training).samples) < 0.01
    scaled = distance_ratios(10 * fresh, 10 * held_out, 10 * training)
    assert np.allclose(scaled.samples, found.samples)
    with pytest.raises(ValueError, match="split them anew"):
        distance_ratios(fresh, training, training)
