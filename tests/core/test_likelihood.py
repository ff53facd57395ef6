"""Log-densities against the exact ones of mixtures, divergences against Jacobians, bounds against integrals."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from osmotic.denoiser import NeuralDenoiser, Rescheduled
from osmotic.dequantize import Exponents, Uniform, Variational, dequantized, surrogate
from osmotic.dequantize import uniform as uniform_numbers
from osmotic.divergence import Exact, Hutchinson, gaussian, rademacher
from osmotic.estimate import V
from osmotic.likelihood import bits_per_dimension, density, elbo, log_prob, score
from osmotic.noise import generators
from osmotic.objectives.decoders import Continuous
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VE, VP, Cosine, Rectified
from osmotic.times import LogSNR

SHAPES = {"vectors": (3,), "sequences": (2, 4), "images": (1, 3, 3)}


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(schedule, shape=(3,)) -> GaussianMixture:
    return GaussianMixture(schedule, 1.5 * draws(5, *shape, seed=1), 0.15)


def data(oracle, n: int = 4) -> torch.Tensor:
    return oracle.sample(n, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", list(SHAPES))
@pytest.mark.parametrize("schedule", [Cosine(), Rectified()], ids=lambda s: type(s).__name__)
def test_the_log_density_is_the_mixtures_own_with_all_defaults(schedule, kind):
    """The promise: 1e-6 nats, on every kind of data, on paths that end in pure noise."""
    oracle = mixture(schedule, SHAPES[kind])
    x = data(oracle)
    assert float((log_prob(oracle, x) - oracle.log_prob(x)).abs().max()) < 1e-6


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_the_log_density_is_exact_on_every_path_given_its_terminal_law(path):
    oracle = mixture(SCHEDULES[path](), (2, 2))
    x = data(oracle)
    found = density(oracle, x, terminal=lambda y: oracle.log_prob(y, 1.0))
    assert float((found.nats - oracle.log_prob(x)).abs().max()) < 1e-6
    assert float(found.spread.abs().max()) == 0
    assert (found.evaluations > 20).all()


def test_the_default_terminal_law_is_the_one_that_sampling_starts_from():
    """VP ends with a little signal left; the difference is that of the two terminal densities, to the last digit."""
    oracle = mixture(VP())
    x = data(oracle)
    exact = density(oracle, x, terminal=lambda y: oracle.log_prob(y, 1.0))
    alpha, sigma = (float(v) for v in oracle.schedule(torch.tensor(1.0, dtype=torch.float64)))
    law = stats.norm(scale=math.hypot(alpha, sigma))
    change = torch.from_numpy(law.logpdf(exact.latent.numpy()).sum(1)) - oracle.log_prob(exact.latent, 1.0)
    assert float(change.abs().max()) > 1e-4
    assert torch.allclose(log_prob(oracle, x), exact.nats + change, atol=1e-8)


def test_the_latent_is_the_flows():
    oracle = Gaussian(VE(30.0), draws(3), torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64))
    x = data(oracle)
    found = density(oracle, x)
    assert torch.allclose(found.latent, oracle.flow(x, 0.0, 1.0), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("schedule", [VP(), VE()], ids=lambda s: type(s).__name__)
def test_noise_is_added_to_the_data_and_nothing_else_changes(schedule):
    """At a noise of 0.3 the result is the density of data + N(0, 0.09), on any path, also where alpha < 1."""
    oracle = mixture(schedule)
    x = data(oracle)
    blurred = GaussianMixture(schedule, 1.5 * draws(5, 3, seed=1), 0.15 + 0.09)
    found = log_prob(oracle, x, noise=0.3, terminal=lambda y: oracle.log_prob(y, 1.0))
    assert float((found - blurred.log_prob(x)).abs().max()) < 1e-6
    assert float((blurred.log_prob(x) - oracle.log_prob(x)).abs().max()) > 0.01


def test_the_score_is_the_gradient():
    oracle = mixture(VP())
    x = data(oracle).requires_grad_()
    blurred = GaussianMixture(VP(), 1.5 * draws(5, 3, seed=1), 0.15 + 0.04)
    (truth,) = torch.autograd.grad(blurred.log_prob(x).sum(), x)
    assert torch.allclose(score(oracle, x.detach(), noise=0.2), truth, atol=1e-8)


def test_a_rescheduled_and_a_conditional_density():
    oracle = mixture(Cosine())
    x, labels = data(oracle), torch.tensor([0, 1, 2, 3])
    assert torch.allclose(log_prob(Rescheduled(oracle, Rectified()), x), oracle.log_prob(x), atol=1e-6)
    assert torch.allclose(log_prob(oracle, x, labels), oracle.log_prob(x, cond=labels), atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch():
    oracle = mixture(Rectified())
    x = data(oracle, 5)
    keyed = [Hutchinson(3, generators(1, [i])) for i in range(5)]
    together = density(oracle, x, divergence=Hutchinson(3, generators(1, range(5))), rtol=1e-6, atol=1e-6)
    for i in range(5):
        alone = density(oracle, x[[i]], divergence=keyed[i], rtol=1e-6, atol=1e-6)
        assert float(alone.nats) == pytest.approx(float(together.nats[i]), abs=1e-10)
        assert int(alone.evaluations) == int(together.evaluations[i])


class Field(nn.Module):
    """A field with a full, unsymmetric Jacobian that differs from sample to sample."""

    def forward(self, x):
        flat = x.flatten(1)
        return (torch.sin(flat @ draws(12, 12, seed=8)) * flat.roll(1, 1)).reshape(x.shape)


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 2, 2, 3)])
@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_the_exact_divergence_is_the_trace_of_the_jacobian(shape, rows):
    field, x = Field(), draws(3, *shape, seed=2)
    with torch.inference_mode():
        y, found = Exact(rows).fixed(x).of(field, x)
    assert torch.allclose(y, field(x))
    assert not y.requires_grad
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda v: field(v[None])[0], x[i]).reshape(12, 12)
        assert float(found[i]) == pytest.approx(float(jacobian.trace()), abs=1e-12)


@pytest.mark.parametrize("law", [rademacher, gaussian])
def test_probes_are_unbiased_with_the_variance_of_their_law(law):
    """On x -> J x: variance 2 sum_{i != j} S_ij^2 for signs, 2 |S|^2 for normals, S the symmetric part."""
    jacobian, n, probes = draws(4, 4, seed=3), 500, 40
    x = draws(n, 4)
    trace = Hutchinson(probes, torch.Generator().manual_seed(4), law).fixed(x)
    _, found = trace.of(lambda x: x @ jacobian.T, x)
    symmetric = (jacobian + jacobian.T) / 2
    off = symmetric - torch.diag(symmetric.diagonal())
    variance = 2 * float((off if law is rademacher else symmetric).square().sum())
    assert found.shape == (n, probes)
    assert float(found.mean()) == pytest.approx(float(jacobian.trace()), abs=5 * math.sqrt(variance / found.numel()))
    # The fourth moments of these quadratic forms are below ten times the squared variance.
    assert float(found.var()) == pytest.approx(variance, rel=5 * math.sqrt(10 / found.numel()))
    # Fixed for a solve: the same functional at every call.
    assert torch.equal(trace.of(lambda x: x @ jacobian.T, x)[1], found)


def test_signs_are_exact_for_a_diagonal_jacobian():
    x = draws(3, 5)
    _, found = Hutchinson(1, torch.Generator().manual_seed(0)).fixed(x).of(torch.sin, x)
    assert torch.allclose(found[:, 0], x.cos().sum(1), atol=1e-12)


def test_probed_log_densities_scatter_around_the_exact_one_as_they_say():
    oracle, n = mixture(Cosine()), 400
    x = data(oracle, n)
    found = density(oracle, x, divergence=Hutchinson(50, generators(2, range(n))), rtol=1e-5, atol=1e-5)
    z = (found.nats - oracle.log_prob(x)) / found.spread
    # Student's law of 49 degrees: z^2 has the mean 49/47 and, nearly as a normal's, the variance 2.3; so the mean
    # square is near 1 on both sides, to within five of its standard errors.
    assert float(z.square().mean()) == pytest.approx(49 / 47, abs=5 * math.sqrt(2.3 / n))
    assert float(found.spread.min()) > 1e-3
    one = density(oracle, x[:2], divergence=Hutchinson(1, generators(2, range(2))), rtol=1e-3, atol=1e-3)
    assert torch.isnan(one.spread).all()


class Wave(nn.Module):
    """A smooth network in single precision whose weights are its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -0.3], [0.4, 0.2]]))

    def forward(self, x, time, cond=None):
        return torch.tanh(x.flatten(1) @ self.weight + time[:, None] / 1000).reshape(x.shape)


def test_a_networks_density_integrates_to_one_and_needs_no_gradients():
    """A flow is a bijection whatever the network is: the density of any model has a whole integral of 1."""
    model = NeuralDenoiser(Wave(), Cosine(), V())
    line, step = torch.linspace(-9, 9, 46, dtype=torch.float64), 18 / 45
    grid = torch.cartesian_prod(line, line)
    with torch.inference_mode():
        nats = log_prob(model, grid.reshape(-1, 1, 2).float(), noise=1e-3, rtol=1e-4, atol=1e-4)
    assert nats.dtype == torch.float64
    # The trapezoidal rule on a smooth density that vanishes at the edge is as good as exact.
    assert float(nats.exp().reshape(46, 46)[[0, -1]].max()) < 1e-6
    assert float(nats.exp().sum()) * step**2 == pytest.approx(1, abs=2e-3)
    standard = torch.from_numpy(stats.norm.logpdf(grid.numpy()).sum(1))
    assert float((nats - standard).abs().max()) > 1


def test_what_means_nothing_is_refused():
    oracle = mixture(VP())
    for noise in (0.0, 1e9):
        with pytest.raises(ValueError, match="noise at which data are read"):
            log_prob(oracle, data(oracle), noise=noise)
    with pytest.raises(ValueError, match="at least one probe"):
        Hutchinson(0)
    with pytest.raises(ValueError, match="spacing"):
        bits_per_dimension(torch.zeros(1), 3, 0.0)


def test_the_elbo_lies_below_the_log_density_and_nears_it():
    """Gaussian data: the gap of the discrete bound closes like 1/T, and the mean over noise is below log p."""
    oracle = Gaussian(Cosine(), torch.zeros(2, dtype=torch.float64), 0.4)
    x = torch.tensor([[0.3, -0.5]], dtype=torch.float64).expand(4000, 2)
    truth, gaps = float(oracle.log_prob(x[:1])), []
    for steps in (8, 64):
        times = LogSNR(0.02, 100)(Cosine(), steps)
        found = elbo(oracle, x, times, Continuous(), generator=torch.Generator().manual_seed(steps))
        error = float(found.std()) / math.sqrt(len(found))
        gaps.append(truth - float(found.mean()))
        assert gaps[-1] > -3 * error
    assert gaps[0] > 4 * gaps[1] - 5 * error


@pytest.mark.parametrize("v", [0.0, 0.4, 1.0])
def test_the_elbo_has_the_variance_that_was_chosen(v):
    """Two steps from noise on Gaussian data, on the same draws: minus the three terms written with torch's normals."""
    schedule = Cosine()
    oracle = Gaussian(schedule, torch.zeros(2, dtype=torch.float64), 0.4)
    x, times = draws(5, 2, seed=2), torch.tensor([0.9, 0.6, 0.3, 0.0], dtype=torch.float64)
    generator, pairs = torch.Generator().manual_seed(4), [schedule.scalars(t) for t in times]
    normal, divergence = torch.distributions.Normal, torch.distributions.kl_divergence
    alpha, sigma = pairs[0]
    nats = divergence(normal(alpha * x, sigma), normal(torch.zeros_like(x), 1.0)).sum(1)
    for i, ((alpha_t, sigma_t), (alpha_s, sigma_s)) in enumerate(itertools.pairwise(pairs)):
        eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        at = alpha_t * x + sigma_t * eps
        guess = alpha_t * 0.4 / (alpha_t**2 * 0.4 + sigma_t**2) * at
        ratio = alpha_t / alpha_s
        large = sigma_t**2 - ratio**2 * sigma_s**2
        small = large * sigma_s**2 / sigma_t**2
        mean, wrong = (ratio * sigma_s**2 / sigma_t**2 * at + alpha_s * large / sigma_t**2 * z for z in (x, guess))
        if i < 2:
            wide, before = large**v * small ** (1 - v), small
            nats = nats + divergence(normal(mean, small**0.5), normal(wrong, wide**0.5)).sum(1)
        else:
            nats = nats - normal(guess, before**0.5).log_prob(x).sum(1)
    found = elbo(oracle, x, times, Continuous(), generator=torch.Generator().manual_seed(4), v=v)
    assert torch.allclose(found, -nats, rtol=1e-9)


@pytest.mark.parametrize(("spacing", "offset"), [(2 / 256, 7), (1 / 256, 8), (2 / 255, math.log2(127.5)), (1.0, 0)])
def test_bits_have_the_offset_of_the_data_range(spacing, offset):
    """A uniform density over all levels of a range costs log2(levels) bits, whatever the range is scaled to."""
    nats = torch.tensor([-12.0])
    assert float(bits_per_dimension(nats, 6, spacing)) == pytest.approx(12 / (6 * math.log(2)) + offset)
    flat = -6 * math.log(256 * spacing)
    assert float(bits_per_dimension(torch.tensor([flat], dtype=torch.float64), 6, spacing)) == pytest.approx(8)


def test_uniform_numbers_are_uniform():
    found = uniform_numbers(draws(4000, 3), torch.Generator().manual_seed(1))
    assert stats.kstest(found.flatten().numpy(), "uniform").pvalue > 1e-4
    u, log_q = Uniform()(draws(10, 3).float(), generators(0, range(10)))
    assert u.dtype == torch.float32
    assert float(u.abs().max()) <= 0.5
    assert torch.equal(log_q, torch.zeros(10, dtype=torch.float64))
    assert torch.equal(Uniform()(draws(1, 3).float(), generators(0, [7]))[0][0], u[7])


class Fixed(nn.Module):
    """The same exponents everywhere."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.logs = (math.log(a), math.log(b))

    def forward(self, x):
        return torch.cat([torch.full_like(x, log) for log in self.logs], 1)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 0.7), (0.5, 3.0)])
def test_the_learned_noise_has_the_density_that_it_says(a, b):
    x = draws(4000, 1)
    u, log_q = Variational(Fixed(a, b))(x, torch.Generator().manual_seed(2))
    w = (u + 0.5).clamp(1e-12, 1 - 1e-12)
    written = math.log(a * b) + (a - 1) * w.log() + (b - 1) * torch.log1p(-(w**a))
    assert torch.allclose(log_q, written[:, 0], atol=1e-6)
    assert stats.kstest(w[:, 0].numpy(), lambda w: 1 - (1 - w**a) ** b).pvalue > 1e-4


SPACING = 0.8


def probabilities(oracle, values: torch.Tensor) -> np.ndarray:
    """log P of each bin by quadrature."""

    def mass(centre: float) -> float:
        def p(x):
            return float(oracle.log_prob(torch.tensor([[x]], dtype=torch.float64)).exp())

        return integrate.quad(p, centre - SPACING / 2, centre + SPACING / 2, epsabs=1e-12)[0]

    return np.log([mass(float(v)) for v in values.flatten()])


def test_a_learned_dequantisation_closes_most_of_the_uniform_gap():
    """Values in wide bins of a bimodal density: uniform < learned < the truth, all in expectation, by quadrature.

    The gap of a dequantisation is the divergence from it to the density within the bin.
    """
    oracle = GaussianMixture(Cosine(), torch.tensor([[-1.1], [0.9]], dtype=torch.float64), 0.09)
    values = torch.arange(-2.4, 2.41, SPACING, dtype=torch.float64)[:, None]
    truth = probabilities(oracle, values)
    weight = torch.from_numpy(np.exp(truth))

    def bound(dequantizer) -> float:
        rows = values.repeat_interleave(4000, 0)
        with torch.no_grad():
            found = dequantized(oracle.log_prob, dequantizer, rows, SPACING, torch.Generator().manual_seed(5))
        return float((found.reshape(len(values), -1).mean(1) * weight).sum())

    learned = Variational(Exponents((1,), 32).double())
    exact = float((torch.from_numpy(truth) * weight).sum())
    assert bound(learned) == pytest.approx(bound(Uniform()), abs=1e-9)  # before training it is uniform
    optimizer = torch.optim.Adam(learned.parameters(), 0.02)
    generator = torch.Generator().manual_seed(6)
    for _ in range(300):
        rows = values[torch.multinomial(weight, 128, replacement=True, generator=generator)]
        optimizer.zero_grad()
        surrogate(lambda y: score(oracle, y), learned, rows, SPACING, generator).mean().backward()
        optimizer.step()
    gaps = exact - bound(Uniform()), exact - bound(learned)
    assert gaps[0] > 0.05
    assert 0 < gaps[1] < gaps[0] / 4


def test_the_surrogates_gradient_is_the_bounds():
    """Against differentiating the exact log-density itself."""
    oracle = mixture(Cosine(), (2,))
    x, learned = data(oracle, 16), Variational(Exponents((2,), 8).double())
    nn.init.normal_(learned.network.second.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    found = []
    for loss in (
        surrogate(lambda y: score(oracle, y, noise=1e-4), learned, x, 0.5, torch.Generator().manual_seed(3)),
        -dequantized(oracle.log_prob, learned, x, 0.5, torch.Generator().manual_seed(3)),
    ):
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), learned.parameters())]))
    assert torch.allclose(*found, atol=1e-5 * float(found[1].abs().max()))
    assert float(found[1].abs().max()) > 0.01
