"""The denoising objective and its weights: closed-form losses and the papers' identities."""

import math

import pytest
import torch
from torch import nn

from osmotic.clocks import Angle, Index, LogSigma, Time
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import TARGETS, X0, Eps, Estimate, V, Velocity
from osmotic.estimate import Karras as KarrasTarget
from osmotic.objectives import denoising
from osmotic.objectives.weights import WEIGHTS, Karras, Likelihood, MinSNR, Unit
from osmotic.oracles import Gaussian
from osmotic.schedules import CATALOG, VE, VP, Rectified

T = torch.linspace(0.05, 0.95, 16, dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Fixed(Denoiser):
    """The estimate that a given error of x0 makes, whatever the target."""

    def __init__(self, schedule, target, error):
        super().__init__()
        self.schedule, self.target, self.error = schedule, target, error

    def forward(self, x, t, cond=None, s=None):
        alpha, sigma = (v[:, None] for v in self.schedule(t))
        x0 = self.truth + self.error
        return Estimate(x0, (x - alpha * x0) / sigma)


@pytest.mark.parametrize("path", list(CATALOG))
@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("weight", list(WEIGHTS))
def test_a_weight_counts_x0_errors_the_same_in_every_target_space(weight, target, path):
    """But for unit weight, which is defined by its space, the weighted loss depends on the error of x0 alone."""
    schedule, x0, eps, error = CATALOG[path](), draws(16, 5), draws(16, 5, seed=1), 0.1 * draws(16, 5, seed=2)
    t = T + 0.00031  # beside the kinks of discrete schedules
    losses = []
    for each in (TARGETS[target](0.5), X0()):
        denoiser = Fixed(schedule, each, error)
        denoiser.truth = x0
        losses.append(denoising(denoiser, x0, t, eps, weight=WEIGHTS[weight](0.5)))
    if weight != "unit":
        assert torch.allclose(*losses, rtol=1e-6)
    else:
        assert torch.allclose(losses[1], error.square().mean(1), rtol=1e-6)


def test_weights_are_the_published_ones():
    schedule = VP()
    snr = schedule.log_snr(T).exp()
    assert torch.allclose(MinSNR(5.0)(schedule, Eps(), T), snr.clamp(max=5) / snr, rtol=1e-10)
    assert torch.allclose(MinSNR(5.0)(schedule, V(), T), snr.clamp(max=5) / (snr + 1), rtol=1e-10)
    sigma = 80 * T
    edm = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    assert torch.allclose(Karras(0.5)(VE(80.0), X0(), T), edm, rtol=1e-10)
    assert torch.allclose(Karras(0.5)(VE(80.0), KarrasTarget(0.5), T), torch.ones_like(T), rtol=1e-10)
    beta = 0.1 + T * 19.9
    assert torch.allclose(Likelihood()(schedule, Eps(), T), beta / (2 * schedule(T)[1] ** 2), rtol=1e-9)


def test_unit_weight_is_l_simple_edm_and_flow_matching():
    """The raw network output against each paper's own regression target."""

    class Echo(nn.Module):
        def forward(self, x, time, cond=None):
            return torch.sin(3 * x)

    x0, eps = draws(16, 5), draws(16, 5, seed=1)

    def loss(schedule, target):
        return denoising(NeuralDenoiser(Echo(), schedule, target), x0, T, eps)

    t = T[:, None]
    alpha, sigma = (v[:, None] for v in VP()(T))
    assert torch.allclose(loss(VP(), Eps()), (torch.sin(3 * (alpha * x0 + sigma * eps)) - eps).square().mean(1))
    flow = (torch.sin(3 * ((1 - t) * x0 + t * eps)) - (eps - x0)).square().mean(1)
    assert torch.allclose(loss(Rectified(), Velocity()), flow)
    s = 80 * t
    x, c_out = x0 + s * eps, s * 0.5 / (s**2 + 0.25).sqrt()
    denoised = 0.25 / (s**2 + 0.25) * x + c_out * torch.sin(3 * x)
    edm = ((s**2 + 0.25) / (s * 0.5) ** 2 * (denoised - x0).square()).mean(1)
    assert torch.allclose(loss(VE(80.0), KarrasTarget(0.5)), edm, rtol=1e-8)


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_loss_at_the_exact_denoiser_is_the_posterior_variance(path):
    """For N(m, s0^2): E|eps - eps*|^2 = alpha^2 s0^2 / V per dimension; nothing is lower, by a perturbation."""
    schedule, n, t = CATALOG[path](), 40_000, 0.43
    oracle = Gaussian(schedule, torch.full((1,), 0.5, dtype=torch.float64), 0.3)
    oracle.target = Eps()
    x0, eps = oracle.sample(n, torch.Generator().manual_seed(0)), draws(n, 1, seed=1)
    loss = denoising(oracle, x0, t, eps)
    alpha, sigma = (float(v) for v in schedule(t))
    expected = alpha**2 * 0.3 / (alpha**2 * 0.3 + sigma**2)
    assert abs(float(loss.mean()) - expected) < 5 * float(loss.std()) / math.sqrt(n)

    class Off(Denoiser):
        def forward(self, x, t, cond=None, s=None):
            return oracle(x, t).lerp(Estimate(torch.zeros_like(x), torch.zeros_like(x)), 0.2)

    off = Off()
    off.schedule, off.target = schedule, Eps()
    assert float(denoising(off, x0, t, eps).mean()) > float(loss.mean())


def test_min_snr_refuses_nonsense():
    with pytest.raises(ValueError, match="positive gamma"):
        MinSNR(0.0)


class Recorder(nn.Module):
    """A network that remembers what it was shown."""

    def forward(self, x, time, cond=None):
        self.seen = (x, time, cond)
        return torch.zeros_like(x)


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_network_sees_unit_variance_and_a_finite_clock(path):
    schedule, network = CATALOG[path](), Recorder()
    denoiser = NeuralDenoiser(network, schedule, V(), sigma_data=0.5)
    n, generator = 20_000, torch.Generator().manual_seed(0)
    for t in (0.01, 0.5, 1.0):
        alpha, sigma = (float(v) for v in schedule(t))
        x = alpha * 0.5 * torch.randn(n, 1, generator=generator) + sigma * torch.randn(n, 1, generator=generator)
        denoiser(x, t, cond="anything")
        seen, time, cond = network.seen
        assert float(seen.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
        assert time.shape == (n,)
        assert 0 <= float(time[0]) <= 1000
        assert cond == "anything"


def test_clocks_are_the_published_ones():
    assert float(Time()(VP(), torch.tensor(0.3))) == pytest.approx(300)
    assert float(Index(1000)(VP(), torch.tensor(0.001))) == 0
    assert float(Index(1000)(VP(), torch.tensor(1.0))) == 999
    assert float(LogSigma()(VE(80.0), torch.tensor(0.5, dtype=torch.float64))) == pytest.approx(250 * math.log(40))
    assert float(Angle()(VE(1.0), torch.tensor(1.0))) == pytest.approx(500)


def test_scalar_and_per_sample_times_agree():
    network = Recorder()
    denoiser = NeuralDenoiser(network, VP(), Eps(), sigma_data=0.5)
    x = draws(4, 3)
    scalar, batch = denoiser(x, 0.4), denoiser(x, torch.full((4,), 0.4, dtype=torch.float64))
    assert torch.allclose(scalar.x0, batch.x0, atol=1e-12)


def test_autocast_is_inside_and_full_precision_outside():
    network = nn.Linear(3, 3)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = network

        def forward(self, x, time, cond=None):
            y = self.linear(x)
            self.dtype = y.dtype
            return y

    inner = Wrapped()
    estimate = NeuralDenoiser(inner, VP(), V(), autocast=torch.bfloat16)(torch.randn(2, 3), 0.5)
    assert inner.dtype == torch.bfloat16
    assert estimate.x0.dtype == torch.float32


def test_a_plain_model_cannot_aim():
    with pytest.raises(ValueError, match="has no flow map"):
        NeuralDenoiser(Recorder(), VP(), V())(torch.zeros(1, 2), 0.5, s=0.1)


def test_unit_weight_is_one():
    assert torch.equal(Unit()(VP(), V(), T), torch.ones_like(T))


@pytest.mark.parametrize("path", ["rectified", "cosine", "vp", "ve", "sub-vp", "geometric-ve", "ddpm-linear"])
def test_the_likelihood_weight_is_finite_also_without_signal(path):
    """At alpha = 0, g^2 / (2 sigma^2) is infinite and the error of eps per error of v is 0; their product is finite."""
    schedule = CATALOG[path]()
    factor = Likelihood()(schedule, V(), torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert torch.isfinite(factor).all()
