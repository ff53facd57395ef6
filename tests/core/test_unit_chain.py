"""The chain of unit steps: posterior, prior, sampler, and three readings of one objective (rows Q1 to Q11)."""

import itertools
import math

import pytest
import torch
from torch import nn

from osmotic.denoiser import NeuralDenoiser, Rescheduled
from osmotic.estimate import Eps
from osmotic.noise import generator
from osmotic.objectives.posterior import forward, posterior, step
from osmotic.objectives.unit_chain import (
    UnitSteps,
    ancestral,
    many_autoencoders,
    many_denoisers,
    reweighted_bound,
    whole_numbers,
)
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import DDIM, DDPM, prepare, sample
from osmotic.schedules import VP
from osmotic.times import Levels

T = 25


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_step_is_many():
    """Q2: x_i = x0 + the sum of i unit noises; forward steps between any levels have variance i - j."""
    schedule = UnitSteps(T)
    for i in range(1, T + 1):
        alpha, sigma = (float(n) for n in schedule(i / T))
        assert (alpha, sigma**2) == pytest.approx((1, i), rel=1e-12)
        scale, fresh = (float(n) for n in forward(schedule, i / T, (i - 1) / T))
        assert (scale, fresh) == pytest.approx((1, 1), rel=1e-9)
        assert float(forward(schedule, 1.0, i / T)[1]) == pytest.approx(T - i, abs=1e-9)
    assert float(schedule.time(schedule.log_snr(0.37))) == pytest.approx(0.37, rel=1e-12)
    with pytest.raises(ValueError, match="at least one step"):
        UnitSteps(0)


def test_the_posterior_weighs_by_one_over_the_level():
    """Q3: N((1 - 1/i) x_i + x0 / i, (1 - 1/i) I), by multiplying the two Gaussians; the seed's example at i = 4."""
    schedule, x0, x = UnitSteps(T), draws(3, 2), draws(3, 2, seed=1)
    for i in range(2, T + 1):
        mean, variance = posterior(schedule, x0, x, i / T, (i - 1) / T)
        # N(x_{i-1}; x0, i - 1) N(x_i; x_{i-1}, 1)
        precision = 1 / (i - 1) + 1
        assert torch.allclose(mean, (x0 / (i - 1) + x) / precision, atol=1e-12)
        assert float(variance) == pytest.approx(1 / precision, rel=1e-9)
    mean, variance = posterior(schedule, x0, x, 4 / T, 3 / T)
    assert torch.allclose(mean, 0.75 * x + 0.25 * x0, atol=1e-12)
    assert float(variance) == pytest.approx(0.75)


def test_the_prior_has_the_moments_of_the_last_level():
    """Q4, for a mixture, which is no Gaussian: mean and covariance of x_T by simulation and in closed form."""
    schedule = UnitSteps(9)
    oracle = GaussianMixture(schedule, torch.tensor([[-4.0, 0.0], [4.0, 2.0]], dtype=torch.float64), 0.5)
    covariance = 0.5 * torch.eye(2, dtype=torch.float64) + torch.tensor([[16.0, 4.0], [4.0, 1.0]]).double()
    mean, wide = schedule.prior(torch.tensor([0.0, 1.0]).double(), covariance)
    n = 100_000
    x = oracle.sample(n, torch.Generator().manual_seed(0)) + 3 * draws(n, 2, seed=1)
    assert torch.allclose(x.mean(0), mean, atol=5 * 5 / math.sqrt(n))
    assert torch.allclose(torch.cov(x.T), wide, atol=5 * 36 / math.sqrt(n))


class Tiny(nn.Module):
    """A network of two dimensions with a few weights."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(3, 7, dtype=torch.float64)
        self.outside = nn.Linear(7, 2, dtype=torch.float64)

    def forward(self, x, time, cond=None):
        return self.outside(torch.tanh(self.inside(torch.cat([x, time[:, None].double() / 1000], 1))))


def model() -> NeuralDenoiser:
    torch.manual_seed(0)
    return NeuralDenoiser(Tiny(), UnitSteps(T), Eps())


def test_the_three_readings_differ_by_known_weights_in_value():
    """Q6 to Q8 with unit noise: (1 / 2i), 1/2 and i on |eps - eps_hat|^2."""
    denoiser, x0, eps, level = model(), 8 * draws(T, 2), draws(T, 2, seed=1), torch.arange(1, T + 1)
    x = x0 + level.double()[:, None].sqrt() * eps
    error = (denoiser(x, level.double() / T).eps - eps).square().sum(1)
    assert torch.allclose(reweighted_bound(denoiser, x0, level, eps), error / (2 * level), rtol=1e-9)
    assert torch.allclose(many_autoencoders(denoiser, x0, level, eps), error / 2, rtol=1e-9)
    assert torch.allclose(many_denoisers(denoiser, x0, level, eps), error * level, rtol=1e-9)


def test_the_first_reading_is_the_divergence_with_unit_covariance():
    """Q5, Q6: KL(posterior || N(mu_theta, I)) minus its part without the model is |x0 - x0_hat|^2 / (2 i^2)."""
    denoiser, x0, eps = model(), 8 * draws(6, 2), draws(6, 2, seed=1)
    for i in (2, 3, 10, T):
        x = x0 + math.sqrt(i) * eps
        mean, variance = posterior(denoiser.schedule, x0, x, i / T, (i - 1) / T)
        guess, _ = posterior(denoiser.schedule, denoiser(x, i / T).x0, x, i / T, (i - 1) / T)
        truth = torch.distributions.Normal(mean, variance.sqrt())
        divergence = torch.distributions.kl_divergence(truth, torch.distributions.Normal(guess, 1.0)).sum(1)
        own = torch.distributions.kl_divergence(truth, torch.distributions.Normal(mean, 1.0)).sum(1)
        found = reweighted_bound(denoiser, x0, torch.full((6,), i), eps)
        assert torch.allclose(found, divergence - own, rtol=1e-7, atol=1e-10)


def test_the_second_reading_is_the_decoders_log_density():
    """Q7: -log N(x0; z - sqrt(i) eps_hat, i I) minus its normalisation."""
    denoiser, x0, eps, i = model(), 8 * draws(6, 2), draws(6, 2, seed=1), 5
    z = x0 + math.sqrt(i) * eps
    decoder = torch.distributions.Normal(z - math.sqrt(i) * denoiser(z, i / T).eps, math.sqrt(i))
    nats = -decoder.log_prob(x0).sum(1) - math.log(2 * math.pi * i)
    assert torch.allclose(many_autoencoders(denoiser, x0, torch.full((6,), i), eps), nats, rtol=1e-8, atol=1e-10)


def test_the_three_readings_differ_by_known_weights_in_gradient():
    denoiser, x0, eps = model(), 8 * draws(4, 2), draws(4, 2, seed=1)

    def gradient(reading, i):
        loss = reading(denoiser, x0, torch.full((4,), i), eps).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(denoiser.parameters()))])

    for i in (1, 4, T):
        one, two, three = (gradient(r, i) for r in (reweighted_bound, many_autoencoders, many_denoisers))
        assert torch.allclose(i * one, two, rtol=1e-9)
        assert torch.allclose(2 * i**2 * one, three, rtol=1e-9)
        assert one.norm() > 1e-3


@pytest.mark.parametrize("v", [0.0, 1.0])
def test_the_tutorials_sampler_is_ddpm_on_this_path(v):
    """Q9, T9: unit covariance is the large variance, and the last step has no noise."""
    schedule = UnitSteps(T)
    oracle = GaussianMixture(schedule, torch.tensor([[-30.0], [20.0]], dtype=torch.float64), 4.0)
    x = draws(7, 1) * math.sqrt(T)
    levels = prepare(oracle, Levels(T)(schedule, T))
    for k, (t, s) in enumerate(itertools.pairwise(levels)):
        i = T - k
        noise = torch.randn(7, 1, generator=generator(3, i), dtype=torch.float64)
        mine = ancestral(oracle, x, i, noise if v else math.sqrt(1 - 1 / i) * noise)
        other, _ = DDPM(v).step(oracle, x, t, s, None, None, generator(3, i))
        assert torch.allclose(mine, other, atol=1e-9)
        x = other
    with pytest.raises(ValueError, match="path UnitSteps; this one is VP"):
        ancestral(GaussianMixture(VP(), torch.zeros(1, 1), 1.0), x, 1, x)


@pytest.mark.parametrize(
    ("variance", "unit", "with_last", "posterior_"),
    [(0.16, 0.034, 1.034, None), (1e4, 9999.1, 10000.1, 9992.8)],
)
def test_the_smallest_noise_is_one(variance, unit, with_last, posterior_):
    """Q9's table at T = 1000: the variance of x0 under the exact denoiser, pushed through the chain's linear maps."""
    n = 1000
    schedule = UnitSteps(n)
    oracle = Gaussian(schedule, torch.zeros(1, dtype=torch.float64), variance)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    large = small = variance + n
    for i in range(n, 0, -1):
        slope = float(ancestral(oracle, one, i, zero))
        large = slope**2 * large + (1 if i > 1 else 0)
        small = slope**2 * small + (float(step(schedule, i / n, (i - 1) / n).small) if i > 1 else 0)
    digits = 3 if variance < 1 else 1
    assert round(large, digits) == unit
    assert round(large + 1, digits) == with_last
    if posterior_ is not None:
        assert round(small, digits) == posterior_


def test_ddim_in_this_chain():
    """Q10: x_s = x0_hat + sqrt(s/t) (x - x0_hat); eta = 1 is Q3's posterior, whose variance is (i - 1)/i."""
    schedule = UnitSteps(T)
    oracle = GaussianMixture(schedule, torch.tensor([[-30.0], [20.0]], dtype=torch.float64), 4.0)
    x = 5 * draws(6, 1)
    for i, j in ((9, 8), (9, 3), (T, 1)):
        levels = prepare(oracle, torch.tensor([i / T, j / T], dtype=torch.float64))
        guess = oracle(x, i / T).x0
        found, _ = DDIM().step(oracle, x, *levels)
        assert torch.allclose(found, guess + math.sqrt(j / i) * (x - guess), atol=1e-9)
    levels = prepare(oracle, torch.tensor([9 / T, 8 / T], dtype=torch.float64))
    noise = torch.randn(6, 1, generator=generator(1), dtype=torch.float64)
    found, _ = DDIM(1.0).step(oracle, x, *levels, generator=generator(1))
    guess, deviation = oracle(x, 9 / T).x0, math.sqrt(8 / 9)
    derived = guess + math.sqrt(9 - 1 - 8 / 9) * (x - guess) / 3 + deviation * noise
    assert torch.allclose(found, derived, atol=1e-9)
    mean, variance = posterior(schedule, guess, x, 9 / T, 8 / T)
    assert torch.allclose(found, mean + variance.sqrt() * noise, atol=1e-9)


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(1.0), DDPM(1.0)])
def test_the_chain_is_a_variance_preserving_one_in_another_scale(sampler):
    """Q11: same levels of noise to signal, same denoiser, same noise: identical after dividing by alpha."""
    unit, vp = UnitSteps(T), VP()
    mixture = GaussianMixture(unit, torch.tensor([[-3.0], [2.0]], dtype=torch.float64), 0.4)
    times = torch.tensor([20, 12, 5, 1], dtype=torch.float64) / T
    there = vp.time(unit.log_snr(times))
    x = draws(6, 1) * math.sqrt(20)
    alpha = vp(there)[0]
    zero = torch.zeros(1, dtype=torch.float64)
    keep = [sampler] if isinstance(sampler, DDIM) else []
    one = sample(sampler, mixture, x, torch.cat([times, zero]), generator=generator(5))
    other = sample(sampler, Rescheduled(mixture, vp), alpha[0] * x, torch.cat([there, zero]), generator=generator(5))
    if keep:
        assert torch.allclose(one, other, atol=1e-8)
    else:  # the large variance is no function of noise to signal alone: V / alpha_s^2 differs between the paths
        assert not torch.allclose(one, other, atol=1e-2)


def test_whole_numbers():
    """C11: integers in range, and nothing changes the second time."""
    x = torch.tensor([-3.2, 0.49, 12.51, 254.6, 300.0])
    rounded = whole_numbers(x, 0, 255)
    assert rounded.tolist() == [0, 0, 13, 255, 255]
    assert torch.equal(whole_numbers(rounded, 0, 255), rounded)
