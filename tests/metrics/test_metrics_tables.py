"""Tables against scipy, scikit-learn, and real data."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, pearsonr
from scipy.stats.contingency import association
from sklearn.datasets import load_diabetes, load_wine
from sklearn.feature_selection import f_classif

from osmotic.metrics import (
    Classification,
    Regression,
    associations,
    column_distances,
    correlation_gap,
    train_on_synthetic,
)

KINDS = np.array([False, True, False, True])


def table(count: int, seed: int) -> np.ndarray:
    """Two columns of numbers and two of categories, all of them related."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=count)
    other = np.where(rng.random(count) < 0.6, kind, rng.integers(4, size=count))
    number = rng.normal(size=count) + kind
    return np.stack([number, 10.5 * kind, np.round(number + rng.normal(size=count), 1), other - 7.0], 1)


def test_columns_are_scipys_and_counts():
    x, y = table(200, 0), table(150, 1)
    y[:, 3] += 1  # a category that real rows lack, and one that samples lack
    found = column_distances(x, y, KINDS)
    for i in (0, 2):
        assert found[i] == pytest.approx(ks_2samp(x[:, i], y[:, i]).statistic)
    for i in (1, 3):
        values = np.union1d(x[:, i], y[:, i])
        truth = sum(abs((x[:, i] == v).mean() - (y[:, i] == v).mean()) for v in values) / 2
        assert found[i] == pytest.approx(truth)
    assert (column_distances(x, x, KINDS) == 0).all()
    assert (column_distances(x, x + 1e3, KINDS) == 1).all()


def test_associations_are_scipys_and_scikit_learns():
    x = table(300, 0)
    found = associations(x, KINDS)
    assert np.array_equal(found, found.T)
    assert (np.diag(found) == 1).all()
    assert found[0, 2] == pytest.approx(pearsonr(x[:, 0], x[:, 2]).statistic)
    codes = [np.unique(x[:, i], return_inverse=True)[1] for i in (1, 3)]
    counts = np.zeros((3, 4), int)
    np.add.at(counts, tuple(codes), 1)
    assert found[1, 3] == pytest.approx(association(counts, method="cramer"))
    for number in (0, 2):
        for kind in (1, 3):
            # The variance ratio F is eta^2 / (1 - eta^2) times the degrees of freedom.
            f = f_classif(x[:, [number]], x[:, kind])[0][0]
            groups = len(np.unique(x[:, kind]))
            eta = np.sqrt(f * (groups - 1) / (f * (groups - 1) + 300 - groups))
            assert found[number, kind] == pytest.approx(eta)


@pytest.mark.parametrize("value", [1.0, 0.1, 1e9 / 3])
def test_a_constant_column_goes_with_nothing(value):
    x = np.column_stack([table(300, 0), np.full((300, 3), value)])
    found = associations(x, np.array([*KINDS, False, True, False]))
    assert np.array_equal(found[4:], np.eye(7)[4:])
    assert Regression().score(np.full(300, value), x[:, 0]) == 0


def test_the_gap_of_equal_laws_falls_and_lost_relations_show():
    gaps = [correlation_gap(table(n, 0), table(n, 1), KINDS) for n in (200, 20_000)]
    assert gaps[1] < gaps[0] < 5 / np.sqrt(200)
    assert gaps[1] < 5 / np.sqrt(20_000)
    x = table(5000, 0)
    rng = np.random.default_rng(0)
    unrelated = np.stack([rng.permutation(column) for column in x.T], 1)
    strength = np.abs(associations(x, KINDS))[np.tril_indices(4, -1)].mean()
    assert correlation_gap(x, unrelated, KINDS) == pytest.approx(strength, abs=5 / np.sqrt(5000))
    assert correlation_gap(x[:, :1], x[:, :1], KINDS[:1]) == 0


def test_training_on_real_wines_and_on_shuffled_ones():
    wine = load_wine()
    order = np.random.default_rng(0).permutation(len(wine.data))
    x, y = wine.data[order], wine.target[order]
    found = train_on_synthetic(x[:90], y[:90], x[90:], y[90:], Classification())
    assert found.value > 0.85  # trees get about 95 % of the wines right
    assert found.low <= found.value <= found.high <= 1
    rng = np.random.default_rng(1)
    blind = train_on_synthetic(x[:90], rng.permutation(y[:90]), x[90:], y[90:], Classification())
    assert blind.value < 0.65
    # A model that knows one class only answers with that; it is right as often as the class is.
    one = train_on_synthetic(x[:90], np.full(90, 1), x[90:], y[90:], Classification())
    assert one.value == (y[90:] == 1).mean()


def test_training_for_numbers():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (800, 2))
    y = 3 * x[:, 0] + rng.normal(size=800)  # the best R^2 is 3 / (3 + 1)
    found = train_on_synthetic(x[:400], y[:400], x[400:], y[400:], Regression())
    assert 0.75 - 0.2 < found.value < 0.75 + 4 * 0.25 / np.sqrt(200)
    shifted = train_on_synthetic(x[:400], y[:400] + 10, x[400:], y[400:], Regression())
    assert shifted.value < -10
    diabetes = load_diabetes()
    seen = train_on_synthetic(diabetes.data, diabetes.target, diabetes.data, diabetes.target, Regression())
    half = slice(None, 221), slice(221, None)
    rows, targets = ([part[h] for h in half] for part in (diabetes.data, diabetes.target))
    fresh = train_on_synthetic(rows[0], targets[0], rows[1], targets[1], Regression())
    assert seen.value > fresh.value + 0.2  # seen rows are told better than others


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: column_distances(np.ones((4, 2)), np.ones((4, 2)), [0, 1]), "2 booleans; got int64"),
        (lambda: correlation_gap(np.ones((4, 2)), np.ones((4, 2)), [True]), "2 booleans"),
        (
            lambda: train_on_synthetic(np.ones((9, 2)), np.ones(8), np.ones((20, 2)), np.ones(20), Regression()),
            "targets must be one for each of 9",
        ),
        (
            lambda: train_on_synthetic(np.ones((9, 2)), ["a"] * 9, np.ones((20, 2)), np.ones(20), Classification()),
            "targets must be real numbers",
        ),
    ],
)
def test_wrong_use_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
