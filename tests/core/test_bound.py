"""The variational bound against brute force, Monte Carlo and the exact numbers of Gaussian data."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from osmotic.denoiser import Denoiser
from osmotic.estimate import TARGETS, Eps, Estimate
from osmotic.laws import Stratified, Uniform
from osmotic.levels import as_time
from osmotic.objectives import Continuous, Discretised, Softmax, bound, continuous_bound, denoising, hybrid, term
from osmotic.objectives.bound import prior
from osmotic.objectives.continuous_bound import diffusion, reconstruction, transition
from osmotic.objectives.decoders import log_mass
from osmotic.objectives.posterior import posterior, step
from osmotic.objectives.weights import WEIGHTS, Likelihood, Noise
from osmotic.oracles import Gaussian
from osmotic.schedules import CATALOG, VE, VP, Cosine, Discrete, GeometricVE, Rectified, Shifted
from osmotic.times import Levels, LogSNR

PATHS = ["vp", "rectified", "ve", "ddpm-linear", "ddpm-zero-terminal", "cosine"]
VARIANCE = 0.25


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Wrong(Denoiser):
    """An estimate that is wrong in a known way, with or without a learned variance."""

    def __init__(self, schedule, share=0.6, v=None):
        super().__init__()
        self.schedule, self.share, self.v = schedule, share, v

    def forward(self, x, t, cond=None, s=None):
        alpha, sigma = (torch.as_tensor(n).expand(len(x))[:, None] for n in self.schedule(as_time(t)))
        x0 = torch.tanh(self.share * x)
        return Estimate(x0, (x - alpha * x0) / sigma, None if self.v is None else self.v.expand_as(x))


def gaussian(schedule, variance=VARIANCE) -> Gaussian:
    return Gaussian(schedule, torch.zeros(1, dtype=torch.float64), variance)


def moments(variance=VARIANCE) -> tuple[torch.Tensor, torch.Tensor]:
    """Four points (x0, eps) with the first two moments of data and noise: quadratic losses have their exact mean."""
    points = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=torch.float64)
    return points[:, :1] * math.sqrt(variance), points[:, 1:]


def grid(path: str, n: int) -> torch.Tensor:
    schedule = CATALOG[path]()
    return Levels()(schedule, n) if isinstance(schedule, Discrete) else LogSNR(0.02, 20.0)(schedule, n)


# Terms.


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("v", [0.0, 0.3, 1.0])
def test_a_step_costs_the_divergence_of_its_two_gaussians(path, v):
    schedule, times = CATALOG[path](), grid(path, 12)
    denoiser, x0, eps = Wrong(schedule), draws(5, 3), draws(5, 3, seed=1)
    for i in range(11):
        t, s = float(times[i]), float(times[i + 1])
        alpha, sigma = (float(n) for n in schedule(t))
        x = alpha * x0 + sigma * eps
        mean, small = posterior(schedule, x0, x, t, s)
        guess, _ = posterior(schedule, denoiser(x, t).x0, x, t, s)
        (alpha_s, sigma_s), small = (float(n) for n in schedule(s)), float(small)
        large = sigma**2 - (alpha / alpha_s) ** 2 * sigma_s**2
        variance = math.exp(v * math.log(large) + (1 - v) * math.log(small))
        truth = torch.distributions.Normal(mean, math.sqrt(small))
        model = torch.distributions.Normal(guess, math.sqrt(variance))
        expected = torch.distributions.kl_divergence(truth, model).sum(1)
        found = term(denoiser, x0, times, torch.full((5,), i), eps, Continuous(), v=v)
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_the_posteriors_variance_gives_the_published_weights():
    """C4 and C5: beta^2 / (2 alpha (1 - alpha-bar) zeta^2) on |eps - eps_hat|^2 with zeta^2 = beta tilde."""
    betas = np.linspace(1e-3, 0.3, 20)
    schedule, times = Discrete(betas), torch.arange(20, -1, -1, dtype=torch.float64) / 20
    denoiser, x0, eps = Wrong(schedule), draws(4, 2), draws(4, 2, seed=1)
    signal = np.concatenate([[1], np.cumprod(1 - betas)])
    for i in range(19):
        level = 20 - i
        beta = betas[level - 1]
        tilde = (1 - signal[level - 1]) / (1 - signal[level]) * beta
        x = math.sqrt(signal[level]) * x0 + math.sqrt(1 - signal[level]) * eps
        wrong = (denoiser(x, level / 20).eps - eps).square().sum(1)
        weight = beta**2 / (2 * (1 - beta) * (1 - signal[level]) * tilde)
        found = term(denoiser, x0, times, torch.full((4,), i), eps, Continuous())
        assert torch.allclose(found, weight * wrong, rtol=1e-9)
        snr_s, snr_t = (signal[k] / (1 - signal[k]) for k in (level - 1, level))
        in_x0 = (denoiser(x, level / 20).x0 - x0).square().sum(1)
        assert torch.allclose(found, (snr_s - snr_t) / 2 * in_x0, rtol=1e-9)


def test_terms_agree_with_cross_entropies_up_to_what_no_model_changes():
    """C3: E[-ln p(x_s | x_t)] under the posterior, by quadrature, minus its entropy; so two models differ alike."""
    schedule, times = VP(), LogSNR(0.05, 10.0)(VP(), 6)
    x0, eps, index = torch.tensor([[0.4]]).double(), torch.tensor([[-0.7]]).double(), torch.tensor([2])
    t, s = float(times[2]), float(times[3])
    alpha, sigma = (float(n) for n in schedule(t))
    x = alpha * x0 + sigma * eps
    mean, small = posterior(schedule, x0, x, t, s)
    truth = stats.norm(float(mean), math.sqrt(float(small)))
    for share in (0.2, 0.9):
        model = Wrong(schedule, share)
        guess, _ = posterior(schedule, model(x, t).x0, x, t, s)
        large = float(step(schedule, t, s).large)
        other = stats.norm(float(guess), math.sqrt(large))
        cross = integrate.quad(lambda y, o=other: -truth.pdf(y) * o.logpdf(y), *truth.interval(1 - 1e-13))[0]
        found = float(term(model, x0, times, index, eps, Continuous(), v=1.0))
        assert found == pytest.approx(cross - float(truth.entropy()), rel=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_the_prior_term_is_a_divergence(path):
    """B7 on variance-preserving paths, where the prior is N(0, I)."""
    schedule, x0 = CATALOG[path](), draws(4, 3)
    for start in (1.0, 0.4):
        alpha, sigma = (float(n) for n in schedule(start))
        for variance in (None, 1.5):
            width = math.sqrt(alpha**2 + sigma**2 if variance is None else variance)
            expected = torch.distributions.kl_divergence(
                torch.distributions.Normal(alpha * x0, sigma), torch.distributions.Normal(0.0 * x0, width)
            ).sum(1)
            assert torch.allclose(prior(schedule, x0, start, variance), expected, rtol=1e-8, atol=1e-12)
    signal = float(schedule(1.0)[0]) ** 2
    if path == "vp":
        ddpm = (signal * x0.square().sum(1) - 3 * signal - 3 * math.log1p(-signal)) / 2
        assert torch.allclose(prior(schedule, x0), ddpm, rtol=1e-6)


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_space_of_the_target_does_not_matter(target):
    schedule, x0, eps = VP(), draws(6, 2), draws(6, 2, seed=1)
    times, index = LogSNR(0.02, 20.0)(schedule, 6), torch.arange(6)
    plain, other = Wrong(schedule), Wrong(schedule)
    other.target = TARGETS[target](0.5)
    found = [term(d, x0, times, index, eps, Continuous(), v=0.4) for d in (plain, other)]
    assert torch.allclose(*found, rtol=1e-8)


# The last step and its variance.


@pytest.mark.parametrize("v", [0.0, 1.0])
def test_the_last_step_decodes_with_the_variance_of_the_one_before(v):
    betas = np.array([1e-3, 2e-3, 0.1])
    schedule, times = Discrete(betas), torch.tensor([3, 2, 1, 0], dtype=torch.float64) / 3
    denoiser, x0, eps = Wrong(schedule), draws(4, 2), draws(4, 2, seed=1)
    x = math.sqrt(1 - 1e-3) * x0 + math.sqrt(1e-3) * eps
    tilde = 1e-3 / (1 - (1 - 1e-3) * (1 - 2e-3)) * 2e-3  # beta tilde of level 2
    expected = -stats.norm.logpdf(x0, denoiser(x, 1 / 3).x0, math.sqrt(tilde)).sum(1)
    found = term(denoiser, x0, times, torch.full((4,), 2), eps, Continuous(), v=v)
    assert np.allclose(found, expected, rtol=1e-8)
    learned = Wrong(schedule, v=torch.tensor(0.3))
    wide = math.exp(0.3 * math.log(1e-3) + 0.7 * math.log(tilde))
    expected = -stats.norm.logpdf(x0, denoiser(x, 1 / 3).x0, math.sqrt(wide)).sum(1)
    assert np.allclose(term(learned, x0, times, torch.full((4,), 2), eps, Continuous(), v=v), expected, rtol=1e-8)


def test_a_single_step_has_the_forward_variance():
    schedule, times = VP(), torch.tensor([0.5, 0.0], dtype=torch.float64)
    x0, eps = draws(3, 2), draws(3, 2, seed=1)
    alpha, sigma = (float(n) for n in schedule(0.5))
    expected = -stats.norm.logpdf(x0, Wrong(schedule)(alpha * x0 + sigma * eps, 0.5).x0, sigma).sum(1)
    found = term(Wrong(schedule), x0, times, torch.zeros(3, dtype=torch.int64), eps, Continuous())
    assert np.allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("deviation", [1e-3, 0.03, 1.0, 30.0])
def test_all_bins_together_have_probability_one(levels, deviation):
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None]
    log_variance = torch.tensor(2 * math.log(deviation), dtype=torch.float64)
    for mean in (-1.4, -0.31, 0.0, 0.998, 3.0):
        for decoder in (Discretised(levels), Softmax(levels)):
            nats = decoder(values, torch.full_like(values, mean), log_variance)
            assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_bins_are_integrals_of_the_normal_density():
    for value, mean, deviation in [(0, 0.1, 0.2), (-1, -0.8, 0.1), (1, 0.5, 0.3), (51 / 127.5 - 1, -0.61, 0.004)]:
        low = -np.inf if value == -1 else value - 1 / 255
        high = np.inf if value == 1 else value + 1 / 255
        expected = stats.norm.cdf(high, mean, deviation) - stats.norm.cdf(low, mean, deviation)
        args = [torch.tensor([[float(n)]], dtype=torch.float64) for n in (value, mean, 2 * math.log(deviation))]
        assert float(Discretised(256)(*args)) == pytest.approx(-math.log(expected), rel=1e-7)


def test_mass_far_in_the_tails_keeps_its_digits_and_gradients():
    """40 deviations away: log of the mass is log density plus log width to first order, and never minus infinity."""
    z = torch.tensor([-40.0, 40.0, 0.0, 39.0], dtype=torch.float64, requires_grad=True)
    half = torch.tensor(1e-4, dtype=torch.float64)
    found = log_mass(z, half)
    expected = stats.norm.logpdf(z.detach()) + math.log(2e-4)
    assert np.allclose(found.detach(), expected, atol=1e-4)
    found.sum().backward()
    assert torch.allclose(z.grad, -z.detach(), atol=1e-3)
    for dtype in (torch.float32, torch.float64):
        mean = torch.full((1, 3), 90.0, dtype=dtype, requires_grad=True)
        nats = Discretised(256)(torch.tensor([[-1.0, 0.0, 1.0]], dtype=dtype), mean, torch.tensor(-12.0, dtype=dtype))
        nats.sum().backward()
        assert torch.isfinite(nats).all()
        assert torch.isfinite(mean.grad).all()


def test_decoders_need_levels():
    with pytest.raises(ValueError, match="at least two levels"):
        Discretised(1)
    with pytest.raises(ValueError, match="fraction v"):
        term(
            Wrong(VP()),
            draws(1, 1),
            torch.tensor([1.0, 0.0]).double(),
            torch.tensor([0]),
            draws(1, 1),
            Continuous(),
            v=1.1,
        )


# The whole bound.


def test_the_parts_are_the_monte_carlo_bound():
    """C2: -E[ln p(x_0:T) - ln q(x_1:T | x0)] over simulated forward paths, by explicit normal densities."""
    schedule, n = Discrete([0.1, 0.3, 0.5, 0.7]), 200_000
    times, v = torch.arange(4, -1, -1, dtype=torch.float64) / 4, 1.0
    denoiser, rng = Wrong(schedule), np.random.default_rng(0)
    x0 = np.full(n, 0.7)
    chain, log_q = [x0], np.zeros(n)
    for beta in [0.1, 0.3, 0.5, 0.7]:
        chain.append(math.sqrt(1 - beta) * chain[-1] + math.sqrt(beta) * rng.standard_normal(n))
        log_q += stats.norm.logpdf(chain[-1], math.sqrt(1 - beta) * chain[-2], math.sqrt(beta))
    log_p = stats.norm.logpdf(chain[4])
    for i in (4, 3, 2, 1):
        x = torch.from_numpy(chain[i])[:, None]
        guess = denoiser(x, i / 4).x0
        mean = posterior(schedule, guess, x, i / 4, (i - 1) / 4)[0][:, 0].numpy()
        # beta but in the last step, which has the posterior variance of level 2.
        variance = [None, 0.1 / (1 - 0.9 * 0.7) * 0.3, 0.3, 0.5, 0.7][i]
        log_p += stats.norm.logpdf(chain[i - 1], mean, math.sqrt(variance))
    nats = -(log_p - log_q)
    many = torch.full((n, 1), 0.7, dtype=torch.float64)
    parts = bound(denoiser, many, times, (draws(n, 1, seed=k) for k in range(4)), Continuous(), v=v)
    assert parts.steps.shape == (3, n)
    total = parts.total
    assert torch.allclose(total, parts.prior + parts.steps.sum(0) + parts.reconstruction)
    error = math.hypot(float(nats.std()), float(total.std())) / math.sqrt(n)
    assert abs(float(total.mean()) - nats.mean()) < 5 * error
    assert error < 0.02


def test_a_random_step_is_unbiased_for_the_sum():
    """n times a term at a uniform index, or any index with its importance weight; exactly, over all indices."""
    schedule, times = Cosine(), LogSNR(0.05, 20.0)(Cosine(), 5)
    x0, eps = draws(3, 2), [draws(3, 2, seed=k) for k in range(5)]
    denoiser = Wrong(schedule)
    parts = bound(denoiser, x0, times, eps, Continuous(), v=0.3)
    rows = torch.cat([parts.steps, parts.reconstruction[None]])
    share = torch.tensor([0.4, 0.1, 0.1, 0.3, 0.1], dtype=torch.float64)
    for i in range(3):
        single = x0[i : i + 1].expand(5, 2)
        every = term(denoiser, single, times, torch.arange(5), torch.stack(eps)[:, i], Continuous(), v=0.3)
        assert torch.allclose(every, rows[:, i], rtol=1e-12)
        assert float((share * every / share).sum()) == pytest.approx(float(rows[:, i].sum()), rel=1e-12)
    with pytest.raises(ValueError, match="argument"):
        bound(denoiser, x0, times, eps[:4], Continuous())


@pytest.mark.parametrize("path", ["vp", "rectified", "ve", "cosine"])
def test_gaussian_data_have_the_closed_form_and_its_limit(path):
    """Terms sum to sum (snr_s - snr_t)/2 v/(1 + v snr_t), and fall to 1/2 log((1 + v snr_max)/(1 + v snr_min)) as 1/T.

    The whole bound falls to the entropy of the data, 0.725791 for variance 1/4, but for the prior's mismatch.
    """
    schedule, (x0, eps) = CATALOG[path](), moments()
    oracle, excess = gaussian(schedule), []
    for n in (50, 100, 200):
        times = LogSNR(0.001, 100.0)(schedule, n)
        parts = bound(oracle, x0, times, (eps for _ in range(n)), Continuous())
        alpha, sigma = (v.numpy() for v in schedule(times[:-1]))
        snr = (alpha / sigma) ** 2
        expected = (snr[1:] - snr[:-1]) / 2 * VARIANCE / (1 + VARIANCE * snr[:-1])
        assert np.allclose(parts.steps.mean(1), expected, rtol=1e-9)
        limit = 0.5 * math.log((1 + VARIANCE * snr[-1]) / (1 + VARIANCE * snr[0]))
        excess.append(float(parts.steps.mean(1).sum()) - limit)
        # The model's last variance is not the best one, so only the first part is compared with its limit.
        assert float(parts.total.mean()) > 0.725791
    # (h/2) coth-like sums: 1/T + O(1/T^2), so halving the step nearly halves the excess.
    assert 1.9 < excess[0] / excess[1] < 2.6
    assert 1.95 < excess[1] / excess[2] < 2.35


def test_the_best_last_variance_reaches_the_entropy():
    """At n = 3000 levels, with the decoder's variance learned in the last step, entropy to the prior's mismatch."""
    assert 0.5 * math.log(2 * math.pi * math.e * VARIANCE) == pytest.approx(0.725791, abs=1e-6)
    schedule, (x0, eps) = VP(), moments()
    totals = []
    for n in (400, 800):
        times = LogSNR(0.005, 100.0)(schedule, n)
        parts = bound(gaussian(schedule), x0, times, (eps for _ in range(n)), Best())
        totals.append(float(parts.total.mean()) - 0.725791)
    assert 0 < totals[1] < totals[0]
    assert totals[1] == pytest.approx(totals[0] / 2, rel=0.03)


class Best(Continuous):
    """The Gaussian decoder whose variance is the posterior's at sigma / alpha = 0.005."""

    def elements(self, x0, mean, log_variance):
        best = torch.tensor(VARIANCE / (1 + VARIANCE / 0.005**2), dtype=torch.float64)
        return super().elements(x0, mean, best.log())


@pytest.mark.parametrize("v", [0.0, 1.0])
def test_the_bound_is_above_the_models_own_density(v):
    """-ELBO(x0) >= -log p(x0) at every x0: for Gaussian data the model is a linear chain, its density Gaussian."""
    schedule = Discrete.linear(50, 1e-3, 0.2)
    times, oracle = Levels()(schedule, 50), gaussian(schedule)
    variance = 1.0  # of x_T under the model
    for i in range(50):
        numbers = step(schedule, times[i], times[i + 1])
        alpha, sigma = (float(n) for n in schedule(times[i]))
        slope = float(numbers.x) + float(numbers.x0) * alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        fresh = float(numbers.large if v else numbers.small)
        if i == 49:
            fresh = float(step(schedule, times[-3], times[-2]).small)
        variance = slope**2 * variance + fresh
    x0 = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    both = [
        bound(oracle, x0, times, (sign * torch.ones_like(x0) for _ in range(50)), Continuous(), v=v, variance=1.0)
        for sign in (-1, 1)
    ]
    nats = (both[0].total + both[1].total) / 2  # quadratic in the noise: its exact mean
    density = stats.norm.logpdf(x0[:, 0], scale=math.sqrt(variance))
    assert (nats.numpy() + density > 0).all()


def test_float32_loses_little():
    """A network runs in float32: the bound of 1000 levels agrees with float64 to the rounding of its inputs."""
    schedule, (x0, eps) = Discrete.linear(), moments()
    times, oracle = Levels()(schedule, 1000), gaussian(schedule)
    exact = bound(oracle, x0, times, (eps for _ in range(1000)), Continuous())
    oracle.float()
    single = bound(oracle, x0.float(), times, (eps.float() for _ in range(1000)), Continuous())
    assert single.total.dtype == torch.float32
    assert torch.allclose(single.total.double(), exact.total, rtol=1e-4)


# Learned variance.


@pytest.mark.parametrize("path", ["vp", "ve", "ddpm-linear"])
def test_the_learned_variance_is_the_best_reverse_variance(path):
    """Minimising the bound over the fraction v gives V* = V_small + (coefficient of x0)^2 Var[x0 | x_t]."""
    schedule, times, (x0, eps) = CATALOG[path](), grid(path, 10), moments()
    exact = gaussian(schedule)
    for i in (3, 6, 8):
        index, v = torch.full((4,), i), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [v], max_iter=60, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def loss(index=index, v=v, optimizer=optimizer):
            optimizer.zero_grad()
            model = Learned(exact, v)
            value = hybrid(model, x0, times, index, eps, Continuous(), scale=1.0).mean()
            value.backward()
            return value

        optimizer.step(loss)
        numbers = step(schedule, times[i], times[i + 1])
        alpha, sigma = schedule(times[i])
        posterior_variance = VARIANCE / (1 + VARIANCE * (alpha / sigma) ** 2)
        best = numbers.small + numbers.x0**2 * posterior_variance
        found = (v.detach() * numbers.large.log() + (1 - v.detach()) * numbers.small.log()).exp()
        assert float(numbers.small) < float(best) < float(numbers.large)
        assert float(found) == pytest.approx(float(best), rel=1e-6)


class Learned(Denoiser):
    """Another denoiser with a learned variance."""

    def __init__(self, denoiser, v, scale=1.0):
        super().__init__()
        self.inner, self.v, self.scale = denoiser, v, scale
        self.schedule, self.target = denoiser.schedule, denoiser.target

    def forward(self, x, t, cond=None, s=None):
        estimate = self.inner(x, t, cond)
        return Estimate(self.scale * estimate.x0, self.scale * estimate.eps, self.v.expand_as(x))


def test_the_hybrid_loss_is_its_two_parts_and_its_bound_moves_no_mean():
    schedule, times = VP(), LogSNR(0.02, 20.0)(VP(), 6)
    x0, eps, index = draws(6, 2), draws(6, 2, seed=1), torch.arange(6)
    v = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    mean = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    model = Learned(Wrong(schedule), v, mean)

    def gradient(loss):
        return [float(g) for g in torch.autograd.grad(loss.sum(), (v, mean), retain_graph=True, materialize_grads=True)]

    for scale in (1e-3, 1.0):
        whole = hybrid(model, x0, times, index, eps, Continuous(), scale=scale)
        simple = denoising(model, x0, times[index], eps)
        step_ = term(model, x0, times, index, eps, Continuous())
        assert torch.allclose(whole, simple + scale * 6 / 2 * step_, rtol=1e-10)
        assert gradient(whole)[1] == pytest.approx(gradient(simple)[1], rel=1e-12)
        assert gradient(whole)[0] == pytest.approx(scale * 3 * gradient(step_)[0], rel=1e-10)
    assert gradient(step_)[1] != 0
    with pytest.raises(ValueError, match="learned_variance=True"):
        hybrid(Wrong(schedule), x0, times, index, eps, Continuous())


# Continuous time.


def integral(function, low, high, n=400) -> float:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    t = torch.from_numpy((high - low) / 2 * nodes + (high + low) / 2)
    return float((torch.from_numpy(weights) * function(t)).sum() * (high - low) / 2)


CLOCKS = [VP(), Cosine(), Rectified(), VE(50.0), GeometricVE(), Shifted(Rectified(), 3.0)]


@pytest.mark.parametrize("schedule", CLOCKS, ids=lambda s: type(s).__name__)
def test_only_the_ends_of_the_path_matter(schedule):
    """Between equal log-SNRs 6 and -4 every path and clock gives 1/2 log((1 + v e^6)/(1 + v e^-4))."""
    first, last = (float(schedule.time(torch.tensor(n, dtype=torch.float64))) for n in (6.0, -4.0))
    (x0, eps), oracle = moments(), gaussian(schedule)

    def mean(t):
        return torch.stack([diffusion(oracle, x0, each, eps).mean() for each in t])

    expected = 0.5 * math.log((1 + VARIANCE * math.exp(6)) / (1 + VARIANCE * math.exp(-4)))
    assert integral(mean, first, last) == pytest.approx(expected, rel=1e-6)


def test_finitely_many_steps_fall_to_the_integral():
    """L_T with T = 200, 400, 800 from above as 1/T; each transition is the discrete bound's term."""
    schedule, (x0, eps) = VP(), moments()
    oracle, first = gaussian(schedule), 0.02
    snr = [float(schedule.log_snr(t).exp()) for t in (first, 1.0)]
    limit = 0.5 * math.log((1 + VARIANCE * snr[0]) / (1 + VARIANCE * snr[1]))
    excess = []
    for n in (200, 400, 800):
        u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        total = sum(
            float(continuous_bound(oracle, x0, each.expand(4), eps, eps, Softmax(16), first, steps=n).steps.mean()) / n
            for each in u
        )
        excess.append(total - limit)
    assert excess[2] > 0
    assert excess[0] / excess[1] == pytest.approx(2, rel=0.1)
    assert excess[1] / excess[2] == pytest.approx(2, rel=0.05)
    # A time within a step counts for the whole step from its noisy end: u in ((i - 1)/T, i/T] is i/T.
    u, index = torch.tensor([0.1, 0.25, 0.3, 0.9], dtype=torch.float64), torch.tensor([1.0, 1, 2, 4]).double()
    drawn = continuous_bound(Wrong(schedule), x0, u, eps, eps, Softmax(16), first, steps=4).steps[0]
    t, s = (first + (1 - first) * i / 4 for i in (index, index - 1))
    assert torch.allclose(drawn, 4 * transition(Wrong(schedule), x0, t, s, eps), rtol=1e-12)
    times = torch.tensor([0.5, 0.3, 0.0], dtype=torch.float64)
    one = term(Wrong(schedule), x0, times, torch.zeros(4, dtype=torch.int64), eps, Continuous())
    assert torch.allclose(transition(Wrong(schedule), x0, 0.5, 0.3, eps), one, rtol=1e-9)


def test_the_continuous_bound_reaches_the_entropy():
    """Prior, integral and a Gaussian reconstruction together, drawn with low discrepancy."""
    schedule, (x0, eps) = VP(), moments()
    n, first = 2048, 0.01
    t, _ = Stratified(Uniform()).draw(schedule, n, torch.Generator().manual_seed(0))
    oracle = gaussian(schedule)
    many = [part.repeat(n, 1) for part in (x0, eps)]  # the exact mean over data and noise at every time
    parts = continuous_bound(oracle, many[0], t.repeat_interleave(4), many[1], many[1], Continuous(), first)
    # The Gaussian around x / alpha is no posterior: its cost over the entropy is known in closed form.
    surplus = 0.5 * math.log1p(math.exp(-float(schedule.log_snr(first))) / VARIANCE)
    # One draw in each of n cells of a falling integrand: at worst half a cell of its rise.
    rise = float(diffusion(oracle, x0, first, eps).mean())
    assert float(parts.total.mean()) == pytest.approx(0.725791 + surplus, abs=rise / (2 * n))
    with pytest.raises(ValueError, match="first time"):
        continuous_bound(oracle, x0, t[:4], eps, eps, Continuous(), 0.0)


def test_several_draws_of_the_continuous_bound_are_their_mean():
    schedule, (x0, eps), u = VP(), moments(), draws(3, 4, seed=2).sigmoid()
    noises = [eps, -eps, eps.flip(0)]

    def parts(u, eps):
        return continuous_bound(Wrong(schedule), x0, u, eps, noises[0], Continuous(), 0.05)

    together, single = parts(u, iter(noises)), [parts(*pair) for pair in zip(u, noises, strict=True)]
    assert together.steps.shape == (3, 4)
    assert torch.allclose(together.total, torch.stack([p.total for p in single]).mean(0), rtol=1e-12)
    with pytest.raises(ValueError, match="argument"):
        parts(u, noises[:2])


def test_reconstruction_is_vdms_softmax():
    """Logits -(z/alpha - x_k)^2 snr / 2 over all levels, by numpy."""
    schedule, first, levels = VP(), 0.05, 5
    values = np.linspace(-1, 1, levels)
    x0, eps = torch.from_numpy(values)[:, None], draws(levels, 1)
    alpha, sigma = (float(n) for n in schedule(first))
    z = alpha * values + sigma * eps[:, 0].numpy()
    logits = -((z[:, None] / alpha - values) ** 2) * (alpha / sigma) ** 2 / 2
    expected = -(logits[np.arange(levels), np.arange(levels)] - np.log(np.exp(logits).sum(1)))
    assert np.allclose(reconstruction(schedule, x0, first, eps, Softmax(levels)), expected, rtol=1e-9)


# Weights.


@pytest.mark.parametrize("target", list(TARGETS))
def test_l_simple_on_any_target(target):
    """C6: the Noise weight turns every target's loss into |eps - eps_hat|^2 / d: d alpha^2 s0^2 / V in the mean."""
    (x0, eps), schedule = moments(), VP()
    oracle = gaussian(schedule)
    oracle.target = TARGETS[target](0.5)
    for t in (0.1, 0.5, 0.9):
        alpha, sigma = (float(n) for n in schedule(t))
        expected = alpha**2 * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        assert float(denoising(oracle, x0, t, eps, weight=Noise()).mean()) == pytest.approx(expected, rel=1e-9)


def test_l_simple_is_unit_weight_on_eps():
    (x0, eps), oracle = moments(), gaussian(VP())
    oracle.target = Eps()
    plain = denoising(oracle, x0, 0.3, eps)
    assert torch.allclose(plain, denoising(oracle, x0, 0.3, eps, weight=Noise()), rtol=1e-12)
    assert torch.allclose(diffusion(oracle, x0, 0.3, eps), denoising(oracle, x0, 0.3, eps, weight=Likelihood()))
    assert "unit" in WEIGHTS
