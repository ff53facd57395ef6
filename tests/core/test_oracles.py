"""The oracles themselves, against automatic differentiation, brute force and each other."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from osmotic.condition import Condition
from osmotic.oracles import Dataset, Gaussian, GaussianMixture
from osmotic.schedules import CATALOG, VE, VP, Rectified

PATHS = ["vp", "rectified", "ve", "sub-vp", "ddpm-linear"]


def covariance(d: int, seed: int) -> torch.Tensor:
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T / d + 0.05 * torch.eye(d, dtype=torch.float64)


def mixture(schedule, **options) -> GaussianMixture:
    generator = torch.Generator().manual_seed(3)
    means = 2 * torch.randn(4, 2, generator=generator, dtype=torch.float64)
    covariances = torch.stack([covariance(2, seed) for seed in range(4)])
    return GaussianMixture(schedule, means, covariances, weights=[1.0, 2.0, 3.0, 0.5], **options)


def points(n: int, *shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS)
def test_mixture_estimate_is_the_score_of_its_density(path):
    """eps = -sigma grad log p and Tweedie's x0 = (x + sigma^2 grad log p) / alpha, by automatic differentiation."""
    oracle = mixture(CATALOG[path]())
    for t in (0.2, 0.65):
        alpha, sigma = oracle.schedule(t)
        x = (alpha * points(16, 2) + sigma * points(16, 2, seed=2)).requires_grad_()
        (score,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
        estimate = oracle(x, t)
        assert torch.allclose(estimate.eps, -sigma * score, atol=1e-9)
        assert torch.allclose(estimate.x0, (x + sigma**2 * score) / alpha, atol=1e-7)


def test_mixture_density_is_scipys():
    oracle = mixture(VP())
    alpha, sigma = (float(v) for v in oracle.schedule(0.4))
    x = points(20, 2)
    weights = np.array([1, 2, 3, 0.5]) / 6.5
    density = sum(
        w
        * stats.multivariate_normal(alpha * m.numpy(), alpha**2 * covariance(2, k).numpy() + sigma**2 * np.eye(2)).pdf(
            x
        )
        for k, (w, m) in enumerate(zip(weights, oracle.means, strict=True))
    )
    assert np.allclose(oracle.log_prob(x, 0.4), np.log(density), atol=1e-10)


def test_mixture_of_one_is_the_gaussian():
    schedule, c, mean = Rectified(), covariance(3, 9), points(3)
    one = GaussianMixture(schedule, mean[None], c[None])
    gaussian = Gaussian(schedule, mean, c)
    x, t = points(5, 3), torch.tensor([0.1, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)
    for a, b in zip(one(x, t), gaussian(x, t), strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    assert torch.allclose(one.log_prob(x, t), gaussian.log_prob(x, t), atol=1e-10)


def test_classes_restrict_the_mixture_and_hidden_ones_do_not():
    oracle = mixture(VP(), classes=[0, 1, 0, 1])
    only = GaussianMixture(
        VP(), oracle.means[[0, 2]], torch.stack([covariance(2, 0), covariance(2, 2)]), weights=[1.0, 3.0]
    )
    x, labels = points(6, 2), torch.zeros(6, dtype=torch.int64)
    assert torch.allclose(oracle(x, 0.5, labels).x0, only(x, 0.5).x0, atol=1e-12)
    assert torch.allclose(oracle.log_prob(x, 0.5, labels), only.log_prob(x, 0.5), atol=1e-12)
    keep = torch.tensor([True, False] * 3)
    mixed = oracle(x, 0.5, Condition(vector=labels, keep=keep)).x0
    assert torch.allclose(mixed[keep], only(x, 0.5).x0[keep], atol=1e-12)
    assert torch.allclose(mixed[~keep], oracle(x, 0.5).x0[~keep], atol=1e-12)
    with pytest.raises(ValueError, match="the classes are"):
        oracle(x, 0.5, labels + 7)


def test_mixture_samples_have_its_moments():
    oracle = mixture(VP())
    n = 40_000
    x = oracle.sample(n, torch.Generator().manual_seed(0))
    weights = torch.tensor([1, 2, 3, 0.5], dtype=torch.float64) / 6.5
    mean = weights @ oracle.means
    second = sum(
        w * (covariance(2, k) + torch.outer(m, m)) for k, (w, m) in enumerate(zip(weights, oracle.means, strict=True))
    )
    spread = (second - torch.outer(mean, mean)).diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * spread / math.sqrt(n)).all()
    assert torch.allclose(x.T @ x / n, second, atol=5 * float((x**2).std()) * 2 / math.sqrt(n))


@pytest.mark.parametrize("path", PATHS)
def test_gaussian_flow_is_the_solution_of_its_own_ode(path):
    """dx/dt = x0 alpha' + eps sigma' along the map, its semigroup property, and the diagonal's boundary condition."""
    schedule = CATALOG[path]()
    oracle = Gaussian(schedule, points(4), covariance(4, 2))
    x, t, h = points(3, 4), 0.6003, 1e-5
    rate = (oracle.flow(x, t, t + h) - oracle.flow(x, t, t - h)) / (2 * h)
    dalpha, dsigma = (float(v) for v in schedule.rates(t))
    assert torch.allclose(rate, oracle(x, t).at(dalpha, dsigma), rtol=1e-4, atol=1e-4)
    twice = oracle.flow(oracle.flow(x, t, 0.3), 0.3, 0.1)
    assert torch.allclose(twice, oracle.flow(x, t, 0.1), atol=1e-12)
    assert torch.allclose(oracle.flow(x, t, t), x, atol=1e-12)


def test_aimed_estimate_reaches_the_flow_map_and_the_present_point():
    oracle = Gaussian(VP(), points(4), covariance(4, 2))
    x, t = points(5, 4), torch.tensor([0.3, 0.5, 0.7, 0.9, 1.0], dtype=torch.float64)
    for s in (0.0, 0.15):
        alpha, sigma = oracle.schedule.numbers(s)
        assert torch.allclose(oracle(x, t, s=s).at(alpha, sigma), oracle.flow(x, t, s), atol=1e-10)
        estimate = oracle(x, t, s=s)
        alpha_t, sigma_t = oracle.schedule(t)
        assert torch.allclose(estimate.at(alpha_t, sigma_t), x, atol=1e-10)


def test_gaussian_log_prob_integrates_the_flow():
    """Change of variables: log p_t(x) = log p_s(flow(x)) + log |det dflow/dx|."""
    oracle = Gaussian(VP(), points(3), covariance(3, 5))
    x = points(1, 3)
    jacobian = torch.autograd.functional.jacobian(lambda y: oracle.flow(y[None], 0.2, 0.8)[0], x[0])
    there = oracle.log_prob(oracle.flow(x, 0.2, 0.8), 0.8) + torch.linalg.slogdet(jacobian).logabsdet
    assert torch.allclose(oracle.log_prob(x, 0.2), there, atol=1e-10)


def test_dataset_is_the_limit_of_sharp_mixtures_and_brute_force():
    schedule, data = VE(10.0), points(7, 2, 3)
    oracle = Dataset(schedule, data)
    x, t = data[:4] + 0.4 * points(4, 2, 3, seed=8), 0.04
    sigma = float(schedule(t)[1])
    logits = torch.stack([-((x - p) ** 2).flatten(1).sum(1) / (2 * sigma**2) for p in data], 1)
    brute = torch.einsum("bn,ncs->bcs", torch.softmax(logits, 1), data)
    assert torch.allclose(oracle(x, t).x0, brute, atol=1e-10)
    sharp = GaussianMixture(schedule, data, 1e-14)
    assert torch.allclose(oracle(x, t).x0, sharp(x, t).x0, atol=1e-6)
    assert torch.allclose(oracle(x, t).eps, sharp(x, t).eps, atol=1e-6)


def test_oracles_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="does not fit a mean"):
        Gaussian(VP(), torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="need covariances"):
        GaussianMixture(VP(), torch.zeros(2, 3), torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="no closed-form flow map"):
        mixture(VP())(points(2, 2), 0.5, s=0.1)


@pytest.mark.parametrize("path", list(CATALOG))
def test_shapes_and_per_sample_times(path):
    """Flattening, batching and per-sample times do not matter, for images as for vectors."""
    schedule = CATALOG[path]()
    flat = GaussianMixture(schedule, points(3, 12), 0.2)
    image = GaussianMixture(schedule, points(3, 12).reshape(3, 1, 3, 4), 0.2)
    x, t = points(4, 12, seed=5), torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    together = image(x.reshape(4, 1, 3, 4), t).eps.flatten(1)
    assert torch.allclose(together, flat(x, t).eps, atol=1e-12)
    alone = torch.cat([flat(x[i : i + 1], t[i]).eps for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-12)


def test_impossible_laws_are_refused():
    mean = torch.zeros(2, 2, dtype=torch.float64)
    for covariances, weights in [(-0.1, None), (0.1, [1.0, -1.0]), (0.1, [1.0])]:
        with pytest.raises(ValueError, match=r"negative eigenvalue|positive weights"):
            GaussianMixture(VP(), mean, covariances, weights)
    hidden = Condition(vector=torch.tensor([99]), keep=torch.tensor([False]))
    oracle = mixture(VP())
    assert torch.equal(oracle(points(1, 2), 0.5, hidden).x0, oracle(points(1, 2), 0.5).x0)
