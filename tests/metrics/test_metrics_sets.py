"""Every score refuses the same wrong sets in a sentence that names the set."""

import inspect

import numpy as np
import pytest

from osmotic import metrics

MASK = np.zeros(3, bool)
# What is called with two sets of three columns; "y" is the second set's name in messages.
PAIRS = {
    "authenticity": ("training data", metrics.authenticity),
    "column_distances": ("samples", lambda x, y: metrics.column_distances(x, y, MASK)),
    "correlation_gap": ("samples", lambda x, y: metrics.correlation_gap(x, y, MASK)),
    "distance_ratios": ("training data", lambda x, y: metrics.distance_ratios(x, x, y)),
    "energy_distance": ("reference", metrics.energy_distance),
    "frechet_infinite": ("reference", metrics.frechet_infinite),
    "kid": ("reference", metrics.kid),
    "manifold": ("samples", metrics.manifold),
    "mmd": ("reference", lambda x, y: metrics.mmd(x, y, metrics.Polynomial())),
    "nearest": ("training data", metrics.nearest),
    "sliced": ("reference", metrics.sliced),
    "train_on_synthetic": (
        "real rows",
        lambda x, y: metrics.train_on_synthetic(x, np.ones(len(x)), y, np.ones(len(y)), metrics.Regression()),
    ),
    "two_sample": ("real data", metrics.two_sample),
}


def good() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 3)), rng.normal(size=(30, 3))


@pytest.mark.parametrize("name", PAIRS)
def test_of_two_sets(name):
    called, score = PAIRS[name]
    x, y = good()
    score(x, y)
    broken = y.copy()
    broken[[3, 7], [0, 2]] = np.nan, np.inf
    with pytest.raises(ValueError, match=f"The {called} have NaN or infinity in 2 of 30 rows"):
        score(x, broken)
    with pytest.raises(ValueError, match=f"3 columns and the {called} 2"):
        score(x, y[:, :2])
    with pytest.raises(ValueError, match=f"The {called} must be at least"):
        score(x, y[:0])
    with pytest.raises(ValueError, match=f"The {called} must be real numbers"):
        score(x, np.array([["a", "b", "c"]] * 30))
    with pytest.raises(ValueError, match=f"The {called} must be real numbers"):
        score(x, y + 1j)


@pytest.mark.parametrize("name", PAIRS)
def test_sets_are_left_as_they_are_and_may_be_of_any_kind(name):
    x, y = good()
    score = PAIRS[name][1]
    kept = x.copy(), y.copy()
    found = score(x, y)
    assert np.array_equal(x, kept[0])
    assert np.array_equal(y, kept[1])
    assert str(score(x.tolist(), y.tolist())) == str(found)


def test_all_public_names_are_there_and_say_what_they_are():
    for name in metrics.__all__:
        assert inspect.getdoc(getattr(metrics, name)), name
    assert metrics.__all__ == sorted(metrics.__all__)


def test_rows_of_any_shape_are_flattened():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2, 3, 4)), rng.normal(size=(30, 2, 3, 4))
    assert metrics.energy_distance(x, y) == metrics.energy_distance(x.reshape(40, -1), y.reshape(30, -1))
    with pytest.raises(ValueError, match="no columns"):
        metrics.energy_distance(np.ones((3, 0)), np.ones((3, 0)))
