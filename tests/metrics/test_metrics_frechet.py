"""The Frechet distance against closed forms, scipy and torchmetrics; its extrapolation against known laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from osmotic.metrics import Moments, frechet, frechet_infinite, rank_warning


def law(mean, covariance) -> Moments:
    return Moments.given(np.atleast_1d(mean), np.atleast_2d(covariance))


def rotation(size: int, rng) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def test_on_a_line():
    assert frechet(law(1.0, 4.0), law(-2.0, 0.25)) == pytest.approx(9 + (2 - 0.5) ** 2, rel=1e-12)
    assert frechet(law(1.0, 4.0), law(-2.0, 0.0)) == pytest.approx(9 + 4, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 20), rank=st.integers(0, 20), other=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_commuting_covariances_of_any_rank(size, rank, other, seed):
    """In a common eigenbasis it is ``|gap|^2 + sum (sqrt a - sqrt b)^2``, null directions included."""
    rng = np.random.default_rng(seed)
    basis, gap = rotation(size, rng), rng.normal(size=size)
    a, b = rng.permutation(10 ** rng.uniform(-8, 2, (2, size)), axis=1)
    a[rank:], b[rng.permutation(size)[other:]] = 0, 0
    one, two = (law(m, basis @ np.diag(s) @ basis.T) for m, s in ((gap, a), (0 * gap, b)))
    truth = (gap**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    scale = truth + a.sum() + b.sum()
    assert frechet(one, two) == pytest.approx(truth, abs=1e-8 * scale)
    assert frechet(two, one) == pytest.approx(frechet(one, two), abs=1e-10 * scale)


@pytest.mark.parametrize("count", [3, 50, 200, 5000])
def test_a_set_is_at_no_distance_from_itself_singular_or_not(count):
    x = np.random.default_rng(0).normal(size=(count, 200)) * np.geomspace(1, 1e-6, 200)
    moments = Moments().update(x)
    assert 0 <= frechet(moments, moments) < 1e-8 * np.trace(moments.covariance)


def test_scipys_root_of_the_product_agrees():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 30)) @ rng.normal(size=(30, 30)), rng.normal(size=(400, 30)) + 0.3
    a, b = Moments().update(x), Moments().update(y)
    root = sqrtm(a.covariance @ b.covariance).real
    truth = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet(a, b) == pytest.approx(truth, rel=1e-8)


def test_a_rotation_of_both_changes_nothing_and_a_scale_squares():
    rng = np.random.default_rng(0)
    x, y, q = rng.normal(size=(90, 10)), rng.normal(size=(80, 10)) * 2 + 1, rotation(10, rng)
    plain = frechet(Moments().update(x), Moments().update(y))
    assert frechet(Moments().update(x @ q), Moments().update(y @ q)) == pytest.approx(plain, rel=1e-10)
    assert frechet(Moments().update(3 * x), Moments().update(3 * y)) == pytest.approx(9 * plain, rel=1e-10)


class Pixels(nn.Module):
    """A picture's first channel as features."""

    num_features = 64

    def forward(self, x):
        return x[:, 0].flatten(1)


def test_torchmetrics_agrees_on_real_digits():
    digits = torch.tensor(load_digits().images, dtype=torch.float64)[:, None].expand(-1, 3, -1, -1) / 16
    digits = digits + 0.05 * torch.randn(digits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    witness = FrechetInceptionDistance(Pixels(), input_img_size=(3, 8, 8), normalize=True)
    witness.set_dtype(torch.float64)
    witness.update(digits[:900], real=True)
    witness.update(digits[900:], real=False)
    one, two = (Moments().update(part[:, 0].numpy()) for part in (digits[:900], digits[900:]))
    assert frechet(one, two) == pytest.approx(float(witness.compute()), rel=1e-3)


def test_too_few_samples_get_a_warning():
    assert rank_warning(Moments().update(np.eye(9)[:, :8])) is None
    assert rank_warning(law(np.zeros(4), np.eye(4))) is None
    words = rank_warning(Moments().update(np.eye(8)))
    assert words is not None
    assert "8 samples" in words
    assert "more than 8" in words


@pytest.mark.parametrize("finite", [False, True], ids=["law", "set"])
def test_the_extrapolated_distance_of_equal_laws_is_zero(finite):
    rng = np.random.default_rng(0)
    width, count, trials = 8, 400, 30
    found, plain = [], []
    for trial in range(trials):
        x = rng.normal(size=(count, width))
        reference = rng.normal(size=(count, width)) if finite else law(np.zeros(width), np.eye(width))
        found.append(frechet_infinite(x, reference, seed=trial))
        plain.append(frechet(Moments().update(x), Moments().update(reference) if finite else reference))
    values = np.array([i.value for i in found])
    error = values.std() / np.sqrt(trials)
    assert np.mean(plain) > 10 * error  # the plain distance is off
    assert abs(values.mean()) < 4 * error
    assert np.mean([i.low <= 0 <= i.high for i in found]) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / trials)


def test_the_extrapolated_distance_of_two_known_gaussians():
    rng = np.random.default_rng(0)
    deviations, trials = np.array([0.5, 1.0, 2.0, 1.5]), 40
    truth = 4 * 0.3**2 + ((deviations - 1) ** 2).sum()
    found = [
        frechet_infinite(rng.normal(size=(600, 4)) * deviations + 0.3, rng.normal(size=(900, 4)), seed=i)
        for i in range(trials)
    ]
    values = np.array([i.value for i in found])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(trials)
    assert np.mean([i.low <= truth <= i.high for i in found]) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / trials)
    # The interval is no wider than it must be: the deviation found over trials, times Student's quantile at 10.
    assert np.median([i.high - i.low for i in found]) < 2 * 2.23 * values.std() * 1.5


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="of 2 and of 3 features"):
        frechet(law([0.0, 0.0], np.eye(2)), law([0.0, 0.0, 0.0], np.eye(3)))
    with pytest.raises(ValueError, match="at least 10"):
        frechet_infinite(np.ones((9, 2)), np.ones((20, 2)))
    with pytest.raises(ValueError, match="2 features and the reference 1"):
        frechet_infinite(np.ones((20, 2)), law(0.0, 1.0))


def test_features_are_as_good_as_their_moments():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(40, 3))
    assert frechet(x, y) == frechet(Moments().update(x), Moments().update(y))
    with pytest.raises(ValueError, match="must be real numbers"):
        Moments().update(x + 1j)
    with pytest.raises(ValueError, match="must be real numbers"):
        frechet([["a"], ["b"]], y)
