"""Kernel distances against closed forms, scikit-learn, scipy and torchmetrics, and unbiased on real digits."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from scipy.stats import energy_distance as scipys
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from torch import nn
from torchmetrics.image.kid import KernelInceptionDistance

from osmotic.metrics import (
    GaussianKernel,
    NegativeDistance,
    Polynomial,
    energy_distance,
    kernel,
    kid,
    median_scale,
    mmd,
)

KERNELS = {"polynomial": Polynomial(), "gaussian": GaussianKernel(0.8), "distance": NegativeDistance()}


def digits() -> np.ndarray:
    return load_digits().data / 16


def direct(k_xx: np.ndarray, k_yy: np.ndarray, k_xy: np.ndarray) -> float:
    n, m = k_xy.shape
    off = [k[~np.eye(len(k), dtype=bool)].mean() for k in (k_xx, k_yy)]
    return off[0] + off[1] - 2 * k_xy.sum() / (n * m)


@pytest.mark.parametrize("name", KERNELS)
def test_it_is_the_sum_over_scikit_learns_kernels(name, monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK", 70)  # several blocks, the last ones unequal
    x, y = digits()[:150], digits()[900:1100]
    theirs = {
        "polynomial": lambda a, b: polynomial_kernel(a, b, degree=3),
        "gaussian": lambda a, b: rbf_kernel(a, b, gamma=1 / (2 * 0.8**2)),
        "distance": lambda a, b: -cdist(a, b),
    }[name]
    assert mmd(x, y, KERNELS[name]) == pytest.approx(direct(theirs(x, x), theirs(y, y), theirs(x, y)), rel=1e-9)


@pytest.mark.parametrize("name", KERNELS)
def test_it_is_unbiased_on_real_digits(name):
    """Over random splits of one set all pairs are alike, so that the mean is 0 exactly.

    KID's own kernel within two standard errors of 200 splits; of several kernels one may well lie beyond that.
    """
    data, rng = digits(), np.random.default_rng(0)
    found = []
    for _ in range(200):
        order = rng.permutation(len(data))
        found.append(mmd(data[order[:60]], data[order[60:200]], KERNELS[name]))
    assert abs(np.mean(found)) < (2 if name == "polynomial" else 3) * np.std(found) / np.sqrt(200)
    assert np.min(found) < 0 < np.max(found)


def test_the_polynomial_kernel_compares_moments():
    """On a line ``(x y + 1)^3`` gives ``3 (m1 - n1)^2 + 3 (m2 - n2)^2 + (m3 - n3)^2``."""
    rng, trials = np.random.default_rng(0), 400
    mean, deviation = 0.4, 1.2
    gaps = [mean, mean**2 + deviation**2 - 1, mean**3 + 3 * mean * deviation**2]
    truth = 3 * gaps[0] ** 2 + 3 * gaps[1] ** 2 + gaps[2] ** 2
    found = [mmd(mean + deviation * rng.normal(size=80), rng.normal(size=50), Polynomial()) for _ in range(trials)]
    assert abs(np.mean(found) - truth) < 4 * np.std(found) / np.sqrt(trials)
    linear = [mmd(mean + deviation * rng.normal(size=80), rng.normal(size=50), Polynomial(1)) for _ in range(trials)]
    assert abs(np.mean(linear) - mean**2) < 4 * np.std(linear) / np.sqrt(trials)


def test_the_gaussian_kernel_of_two_gaussians():
    rng, trials, width, gap, scale = np.random.default_rng(0), 300, 3, 0.8, 1.5
    spread = scale**2 + 2
    truth = 2 * (scale**2 / spread) ** (width / 2) * (1 - np.exp(-width * gap**2 / (2 * spread)))
    found = [
        mmd(rng.normal(size=(60, width)) + gap, rng.normal(size=(90, width)), GaussianKernel(scale))
        for _ in range(trials)
    ]
    assert abs(np.mean(found) - truth) < 4 * np.std(found) / np.sqrt(trials)


class Pixels(nn.Module):
    """A picture's first channel as features."""

    num_features = 64

    def forward(self, x):
        return x[:, 0].flatten(1)


def test_torchmetrics_agrees_where_its_subset_is_the_set():
    images = torch.tensor(load_digits().images)[:, None].expand(-1, 3, -1, -1) / 16
    witness = KernelInceptionDistance(Pixels(), subsets=1, subset_size=800, normalize=True)
    witness.set_dtype(torch.float64)
    witness.update(images[:800], real=True)
    witness.update(images[800:1600], real=False)
    x = digits()
    assert mmd(x[:800], x[800:1600], Polynomial()) == pytest.approx(float(witness.compute()[0]), rel=1e-4)


def test_kid_is_the_mean_over_subsets_and_covers_the_truth():
    rng, trials = np.random.default_rng(0), 60
    truth = 0.3**2  # of the kernel of degree 1, whatever the width
    for count, size in ((300, 40), (300, 1000)):
        found = [
            kid(rng.normal(size=(count, 5)) + 0.3, rng.normal(size=(count, 5)), Polynomial(1), subsets=30, size=size)
            for _ in range(trials)
        ]
        values = np.array([i.value for i in found])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(trials)
        assert np.mean([i.low <= truth <= i.high for i in found]) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / trials)
        assert np.median([i.high - i.low for i in found]) < 2 * 1.96 * values.std() * 2


def test_kids_default_is_the_published_kernel():
    x = digits()
    found, plain = kid(x[:800], x[800:1600] * 0.9), mmd(x[:800], x[800:1600] * 0.9, Polynomial())
    assert abs(found.value - plain) < (found.high - found.low) / 2
    assert kid(x[:800], x[800:1600], seed=1) == kid(x[:800], x[800:1600], seed=1)


def test_the_energy_distance_is_scipys_up_to_its_bias():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=200), rng.exponential(size=150)
    # scipy's is the root of the statistic that counts each sample's distance 0 to itself.
    bias = pdist(x[:, None]).mean() / 200 + pdist(y[:, None]).mean() / 150
    assert energy_distance(x, y) == pytest.approx(scipys(x, y) ** 2 - bias, rel=1e-9)


def test_the_median_scale():
    x = digits()[:300]
    assert median_scale(x) == pytest.approx(np.median(pdist(x)), rel=1e-6)
    assert median_scale(np.random.default_rng(0).normal(size=(3000, 400))) == pytest.approx(np.sqrt(800), rel=0.01)
    with pytest.raises(ValueError, match="median distance is 0"):
        median_scale(np.ones((20, 3)))


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="positive and finite"):
        GaussianKernel(0.0)
    with pytest.raises(ValueError, match="At least 2 subsets"):
        kid(np.ones((9, 2)), np.ones((9, 2)), subsets=1)
