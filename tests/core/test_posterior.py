"""Gaussians between levels, against recursions, Schur complements and scipy: rows B1 to B12, C4, C5, D5 of the
tutorials.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from osmotic.estimate import Eps, solve
from osmotic.objectives.posterior import Mean, forward, kl, posterior, step
from osmotic.oracles import GaussianMixture
from osmotic.schedules import CATALOG, Discrete

PAIRS = [(1.0, 0.7), (0.7, 0.3), (0.35, 0.349), (0.2, 0.001)]


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def ddpm():
    """A chain of 40 steps, and its constants by the tutorials' recursions, index 0 being the data."""
    betas = np.linspace(1e-3, 0.3, 40)
    alpha = 1 - betas
    signal = np.concatenate([[1.0], np.cumprod(alpha)])
    return Discrete(betas), np.concatenate([[np.nan], betas]), np.concatenate([[np.nan], alpha]), signal


def test_the_recursion_is_the_closed_form(ddpm):
    """B1, B3, B6: composing steps x <- sqrt(1 - beta) x + sqrt(beta) z, and unit variance is kept."""
    schedule, betas, _, _ = ddpm
    mean, variance, unit = 1.0, 0.0, 1.0
    for i in range(1, 41):
        t, s = i / 40, (i - 1) / 40
        scale, fresh = (float(n) for n in forward(schedule, t, s))
        assert scale == pytest.approx(math.sqrt(1 - betas[i]), rel=1e-12)
        assert fresh == pytest.approx(betas[i], rel=1e-11)
        mean, variance = math.sqrt(1 - betas[i]) * mean, (1 - betas[i]) * variance + betas[i]
        unit = (1 - betas[i]) * unit + betas[i]
        alpha, sigma = (float(n) for n in schedule(t))
        assert (alpha, sigma**2) == pytest.approx((mean, variance), rel=1e-12)
        assert unit == pytest.approx(1, abs=1e-12)


def test_the_posterior_has_the_published_constants(ddpm):
    """B2, B10, B11 and E2 in the tutorials' own forms; T5: alpha-bar of the first step is 1 - beta_1."""
    schedule, betas, alpha, signal = ddpm
    assert float(schedule(1 / 40)[0]) ** 2 == pytest.approx(1 - betas[1], rel=1e-14)
    x0, x = draws(3, 2), draws(3, 2, seed=1)
    for i in range(1, 41):
        mean, variance = posterior(schedule, x0, x, i / 40, (i - 1) / 40)
        noise = 1 - signal[i]
        classic = (
            math.sqrt(signal[i - 1]) * betas[i] / noise * x0 + math.sqrt(alpha[i]) * (1 - signal[i - 1]) / noise * x
        )
        eps = (x - math.sqrt(signal[i]) * x0) / math.sqrt(noise)
        assert torch.allclose(mean, classic, atol=1e-12)
        assert torch.allclose(mean, (x - betas[i] / math.sqrt(noise) * eps) / math.sqrt(alpha[i]), atol=1e-11)
        assert float(variance) == pytest.approx((1 - signal[i - 1]) / noise * betas[i], rel=1e-11)
        assert float(variance) < betas[i]
        assert betas[i] == pytest.approx(1 - noise_ratio(schedule, i), rel=1e-10)
    assert float(posterior(schedule, x0, x, 1 / 40, 0.0)[1]) == 0
    assert torch.allclose(posterior(schedule, x0, x, 1 / 40, 0.0)[0], x0, atol=1e-14)


def noise_ratio(schedule, i):
    """``(1 - sigma_i^2) / (1 - sigma_{i-1}^2)`` of the marginal deviations."""
    now, before = (1 - float(schedule(j / 40)[1]) ** 2 for j in (i, i - 1))
    return now / before


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_posterior_is_the_conditional_of_the_joint(path):
    """B10: (x_s, x_t) given x0 is Gaussian with covariance built from the forward step; condition it by Schur."""
    schedule, x0, x = CATALOG[path](), 0.7, -1.3
    for t, s in PAIRS:
        alpha_s, sigma_s = (float(n) for n in schedule(s))
        scale, fresh = (float(n) for n in forward(schedule, t, s))
        alpha, sigma = (float(n) for n in schedule(t))
        cross, here = scale * sigma_s**2, scale**2 * sigma_s**2 + fresh
        assert here == pytest.approx(sigma**2, rel=1e-9)  # B3 again: the two ways to t agree
        gain = cross / here
        mean, variance = posterior(schedule, *(torch.tensor([[n]], dtype=torch.float64) for n in (x0, x)), t, s)
        assert float(mean) == pytest.approx(alpha_s * x0 + gain * (x - alpha * x0), rel=1e-8, abs=1e-10)
        assert float(variance) == pytest.approx(sigma_s**2 - gain * cross, rel=1e-6)


def test_times_may_differ_by_sample():
    schedule = CATALOG["vp"]()
    t = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    x0, x = draws(3, 2), draws(3, 2, seed=1)
    mean, variance = posterior(schedule, x0, x, t, t / 2)
    for i in range(3):
        one, its = posterior(schedule, x0[i : i + 1], x[i : i + 1], float(t[i]), float(t[i]) / 2)
        assert torch.allclose(mean[i], one[0], atol=1e-14)
        assert float(variance[i]) == pytest.approx(float(its), rel=1e-12)


def test_the_noises_rotate(ddpm):
    """B8: (z of x_{t-1}, z of the step) rotates to (z of x_t, z'), and x_{t-1} = posterior mean - deviation z'."""
    schedule, betas, alpha, signal = ddpm
    x0, z, fresh = draws(5, seed=2), draws(5, seed=3), draws(5, seed=4)
    for i in range(2, 41):
        sigma = math.sqrt(1 - signal[i])
        c, s = math.sqrt(alpha[i] - signal[i]) / sigma, math.sqrt(betas[i]) / sigma
        assert c**2 + s**2 == pytest.approx(1, abs=1e-12)
        before = math.sqrt(signal[i - 1]) * x0 + math.sqrt(1 - signal[i - 1]) * z
        x = math.sqrt(alpha[i]) * before + math.sqrt(betas[i]) * fresh
        whole, other = c * z + s * fresh, -s * z + c * fresh
        assert torch.allclose(x, math.sqrt(signal[i]) * x0 + sigma * whole, atol=1e-12)
        mean, variance = posterior(schedule, x0, x, i / 40, (i - 1) / 40)
        assert torch.allclose(before, mean - variance.sqrt() * other, atol=1e-12)


@pytest.mark.parametrize("path", ["vp", "rectified", "ve", "sub-vp", "ddpm-linear"])
def test_both_factorisations_of_the_joint_agree(path):
    """B4, B9: the path's log-density by forward steps is that by posteriors from the end."""
    schedule, times, x0 = CATALOG[path](), [0.0, 0.1, 0.35, 0.6, 0.9], 0.4
    rng = np.random.default_rng(0)
    for _ in range(5):
        path_ = [x0]
        for s, t in itertools.pairwise(times):
            scale, fresh = (float(n) for n in forward(schedule, t, s))
            path_.append(scale * path_[-1] + math.sqrt(fresh) * rng.standard_normal())
        ahead = 0.0
        for k in range(1, len(times)):
            scale, fresh = (float(n) for n in forward(schedule, times[k], times[k - 1]))
            ahead += stats.norm.logpdf(path_[k], scale * path_[k - 1], math.sqrt(fresh))
        alpha, sigma = (float(n) for n in schedule(times[-1]))
        back = stats.norm.logpdf(path_[-1], alpha * x0, sigma)
        for k in range(len(times) - 1, 1, -1):
            one = [torch.full((1, 1), float(v), dtype=torch.float64) for v in (x0, path_[k])]
            mean, variance = posterior(schedule, *one, times[k], times[k - 1])
            back += stats.norm.logpdf(path_[k - 1], float(mean), math.sqrt(float(variance)))
        assert back == pytest.approx(ahead, abs=1e-9)


def test_what_comes_later_says_nothing_more(ddpm):
    """B12: conditioning x_{t-1} on x_t .. x_T and x0 gives no weight to x_{t+1} .. x_T, and the posterior's on x_t."""
    schedule, betas, _, _ = ddpm
    n, now = 40, 12
    # The joint covariance of x_1 .. x_T given x0 by brute force: x = L z with L from the recursion.
    rows = np.zeros((n + 1, n))
    for i in range(1, n + 1):
        rows[i] = math.sqrt(1 - betas[i]) * rows[i - 1]
        rows[i, i - 1] = math.sqrt(betas[i])
    covariance = rows @ rows.T
    later = np.arange(now, n + 1)
    weights = np.linalg.solve(covariance[np.ix_(later, later)], covariance[later, now - 1])
    numbers = step(schedule, now / n, (now - 1) / n)
    assert weights[0] == pytest.approx(float(numbers.x), rel=1e-8)
    assert np.abs(weights[1:]).max() < 1e-9
    rest = covariance[now - 1, now - 1] - weights @ covariance[later, now - 1]
    assert rest == pytest.approx(float(numbers.small), rel=1e-8)


def test_the_divergence_is_that_of_gaussians():
    for ratio in (1e-3, 0.5, 1.0, 3.0, 50.0):
        one, two = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, math.sqrt(ratio))
        log_ratio = torch.tensor(math.log(ratio), dtype=torch.float64)
        expected = float(torch.distributions.kl_divergence(one, two))
        assert float(kl(log_ratio)) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    # Near equality the difference form would be all rounding: r^2 / 4.
    assert float(kl(torch.tensor(1e-6, dtype=torch.float64))) == pytest.approx(2.5e-13, rel=1e-5)


@pytest.mark.parametrize("path", ["ddpm-linear", "vp", "cosine", "rectified"])
def test_a_network_of_the_mean_decodes_to_the_same_estimate(path):
    """D5, D7: y = the posterior mean at the mixture's E[x0 | x_t], for which E[eps | x_t] is Tweedie's."""
    schedule = CATALOG[path]()
    oracle = GaussianMixture(schedule, torch.tensor([[-1.0], [2.0]], dtype=torch.float64), 0.1)
    target, x = Mean(20), draws(6, 1, seed=5)
    for t in (0.2, 0.55, 0.95):
        estimate = oracle(x, t)
        y, _ = posterior(schedule, estimate.x0, x, t, t - 1 / 20)
        a, b = target.numbers(schedule, t)
        assert torch.allclose(estimate.at(a, b), y, atol=1e-10)
        back = solve(x, y, schedule.numbers(t), (a, b))
        assert torch.allclose(back.x0, estimate.x0, atol=1e-8)
        assert torch.allclose(back.eps, estimate.eps, atol=1e-8)
    assert Eps().numbers(schedule, 0.5) == (0.0, 1.0)


def test_a_mean_needs_levels():
    with pytest.raises(ValueError, match="at least one level"):
        Mean(0)
