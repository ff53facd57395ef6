"""A classifier tells what differs, and nothing else."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from osmotic.metrics import two_sample
from osmotic.metrics.two_sample import _share_below


@pytest.mark.parametrize(("counts", "width"), [((200, 200), 4), ((300, 120), 4), ((150, 150), 130)])
def test_equal_laws_cannot_be_told_apart(counts, width):
    rng, trials = np.random.default_rng(0), 4
    found = [
        two_sample(rng.normal(size=(counts[0], width)), rng.normal(size=(counts[1], width))) for _ in range(trials)
    ]
    for name in ("accuracy", "auc"):
        intervals = [getattr(f, name) for f in found]
        # An interval's half is 1.96 errors; the folds' classifiers share rows, which adds little.
        error = np.mean([i.high - i.low for i in intervals]) / (2 * 1.96)
        assert abs(np.mean([i.value for i in intervals]) - 0.5) < 4 * error / np.sqrt(trials)
        assert sum(i.low <= 0.5 <= i.high for i in intervals) >= trials - 1
        assert 0.5 < error * 2 * np.sqrt(2 / (1 / counts[0] + 1 / counts[1])) < 1.5


@pytest.mark.parametrize("width", [3, 150], ids=["trees", "linear"])
def test_shifted_gaussians_approach_the_best_rule(width):
    """Shifted by d, the best accuracy is ``Phi(d / 2)`` and the best area ``Phi(d / sqrt 2)``; none does better."""
    rng, gap = np.random.default_rng(0), 2.0
    shift = np.full(width, gap / np.sqrt(width))
    found = two_sample(rng.normal(size=(600, width)) + shift, rng.normal(size=(600, width)))
    accuracy, area = norm.cdf(gap / 2), norm.cdf(gap / np.sqrt(2))
    assert accuracy - 0.08 < found.accuracy.value < accuracy + 4 * np.sqrt(accuracy * (1 - accuracy) / 1200)
    assert area - 0.08 < found.auc.value < area + 0.03
    assert found.accuracy.low > 0.5
    assert found.auc.low > 0.5


def test_what_is_plainly_different_is_always_told():
    found = two_sample(np.zeros((60, 2)), np.ones((50, 2)))
    assert found.accuracy.value == found.auc.value == 1
    assert 0.9 < found.accuracy.low < 1
    assert found.accuracy.high == 1


def test_copies_of_the_real_data_are_not_called_different():
    real = load_breast_cancer().data[:150]
    found = two_sample(real, real)
    assert found.accuracy.value < 0.55
    assert found.auc.value < 0.55


def test_shares_below_average_to_scikit_learns_area():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 70), rng.integers(0, 7, 40)  # with ties
    truth = roc_auc_score(np.repeat([1, 0], [70, 40]), np.concatenate([a, b]))
    assert _share_below(a, b).mean() == pytest.approx(truth)
    assert 1 - _share_below(b, a).mean() == pytest.approx(truth)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="at least 2 folds"):
        two_sample(np.ones((9, 2)), np.ones((9, 2)), folds=1)
    with pytest.raises(ValueError, match="real data must be at least 10"):
        two_sample(np.ones((10, 2)), np.ones((9, 2)))
