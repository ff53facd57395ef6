"""Intervals hold the truth as often as they say, on known laws."""

import numpy as np
import pytest
from scipy import stats

from osmotic.metrics import Manifold, Moments, bootstrap, frechet, jackknife, manifold
from osmotic.metrics.interval import around


def covered(intervals, truth) -> float:
    return float(np.mean([i.low <= truth <= i.high for i in intervals]))


def test_around_is_students():
    for freedom in (1, 5, 30):
        found = around(2.0, 0.5, freedom, 0.9)
        assert np.allclose([found.low, found.high], stats.t.interval(0.9, freedom, 2.0, 0.5))
    found = around(2.0, 0.5)
    assert np.allclose([found.low, found.high], stats.norm.interval(0.95, 2.0, 0.5))


@pytest.mark.parametrize("method", [bootstrap, jackknife])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_mean_of_a_skewed_law_is_covered(method, level):
    rng = np.random.default_rng(0)
    found = [method(np.mean, rng.exponential(size=100), seed=i, level=level) for i in range(300)]
    # Student's own interval of 100 exponentials covers about 1 % less than it says; five standard errors of 300 trials.
    assert abs(covered(found, 1.0) - level) < 0.02 + 5 * np.sqrt(level * (1 - level) / 300) / 2
    assert all(i.low <= i.value <= i.high for i in found)


def test_the_errors_of_independent_sets_add():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4000), rng.normal(size=1000)
    for method, draws in ((bootstrap, {"draws": 2000}), (jackknife, {"blocks": 200})):
        found = method(lambda a, b: a.mean() - b.mean(), x, y, **draws)
        error = np.sqrt(x.var() / 4000 + y.var() / 1000)
        # The deviation of a deviation from B draws is 1 / sqrt(2 B).
        assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=5 / np.sqrt(2 * 200))
        assert found.value == x.mean() - y.mean()


def test_a_biased_distance_is_covered_at_its_own_count():
    """The bootstrap of a Frechet distance is shifted upwards twice; the interval must not be."""
    rng = np.random.default_rng(0)

    def distance(x, y):
        return frechet(Moments().update(x), Moments().update(y))

    def draw():
        return rng.normal(size=(100, 10)), rng.normal(size=(100, 10)) + 0.4

    drawn = [distance(*draw()) for _ in range(1000)]
    expected = np.mean(drawn)
    assert expected > 10 * 0.4**2 + np.std(drawn)  # the bias is there, and larger than the error
    found = [bootstrap(distance, *draw(), draws=100, seed=i) for i in range(150)]
    assert covered(found, expected) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / 150)
    assert np.mean([i.high < expected for i in found]) < 0.12
    assert np.mean([i.low > expected for i in found]) < 0.12


def test_precision_is_covered_by_the_jackknife():
    """Half of the samples are far away: precision is about 1/2, with the binomial's error and not much more."""
    rng = np.random.default_rng(0)
    share = 0.5

    def draw():
        samples = rng.normal(size=(200, 2))
        return rng.normal(size=(200, 2)), samples + 50.0 * (rng.random((200, 1)) < share)

    expected = np.mean([manifold(*draw()).precision for _ in range(200)])
    found = [jackknife(lambda x, y: manifold(x, y).precision, *draw(), seed=i) for i in range(60)]
    assert isinstance(manifold(*draw()), Manifold)
    assert covered(found, expected) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / 60)
    width = np.median([i.high - i.low for i in found])
    assert 1 < width / (2 * 1.96 * np.sqrt(share * (1 - share) / 200)) < 2


def test_rows_stay_whole_and_seeds_decide():
    pairs = np.repeat(np.arange(50.0)[:, None], 2, axis=1)

    def same(rows):
        assert (rows[:, 0] == rows[:, 1]).all()
        return rows[:, 0].mean()

    for method in (bootstrap, jackknife):
        assert method(same, pairs, seed=3) == method(same, pairs, seed=3)
        assert method(same, pairs, seed=3) != method(same, pairs, seed=4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap(np.mean), "No sets"),
        (lambda: bootstrap(np.mean, [1.0]), "Set 1 needs at least 2"),
        (lambda: jackknife(np.mean, np.arange(30.0), np.arange(5.0)), "Set 2 needs at least 20"),
        (lambda: bootstrap(np.mean, [1.0, 2.0], draws=1), "at least 2 draws"),
        (lambda: jackknife(np.mean, [1.0, 2.0], blocks=1), "at least 2 blocks"),
        (lambda: bootstrap(np.mean, [1.0, 2.0], level=95), r"lies in \(0, 1\)"),
        (lambda: jackknife(np.mean, [1.0, 2.0], blocks=2, level=0), r"lies in \(0, 1\)"),
    ],
)
def test_wrong_use_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
