"""Hybrid score matching and networks in phase space."""

import itertools

import numpy as np
import pytest
import torch
from phase_truth import PATHS, at, draws
from torch import nn

from osmotic import oracles, phase, times
from osmotic.phase import (
    CLD,
    GDDIM,
    SSCS,
    Cholesky,
    Gaussian,
    Lifted,
    Mixed,
    NeuralPhaseDenoiser,
    Noise,
    Position,
    VelocityNoise,
    hybrid,
)
from osmotic.phase.matrix import apply
from osmotic.samplers import sample


def residual(path, t: float, variance: float, target) -> float:
    """The mean variance of a target's outputs given u_t on N(0, variance) data: conditioning of Gaussians, in numpy."""
    a, r = (m.numpy() for m in path(at(t)))
    p, q = (np.array(m.entries).reshape(2, 2)[: target.outputs] for m in target.rows(path, at(t)))
    prior = np.diag([variance, 1.0, 1.0])  # of (x0, eps_x, eps_v)
    seen, asked = np.concatenate([a[:, :1], r], 1), np.concatenate([p[:, :1], q], 1)
    gain = asked @ prior @ seen.T @ np.linalg.inv(seen @ prior @ seen.T)
    return float(np.trace(asked @ prior @ asked.T - gain @ seen @ prior @ asked.T)) / target.outputs


@pytest.mark.parametrize("target", [VelocityNoise(), Noise(), Position()])
@pytest.mark.parametrize("name", ["flow", "cholesky", "linear"])
def test_the_loss_of_the_exact_score_is_its_closed_form(name, target):
    """The error is linear in (x0, eps), so its mean square is the sum over unit vectors: no Monte Carlo."""
    path, variance = PATHS[name](), 0.3
    oracle = Gaussian(path, torch.zeros(1, dtype=torch.float64), variance)
    x0 = torch.tensor([[variance**0.5], [0.0], [0.0]], dtype=torch.float64)
    eps = torch.zeros(3, 2, 1, dtype=torch.float64)
    eps[1, 0], eps[2, 1] = 1, 1
    for t in (0.03, 0.3, 1.0):
        loss = hybrid(oracle, x0, t, eps, target=target)
        assert loss.shape == (3,)
        assert float(loss.sum()) == pytest.approx(residual(path, t, variance, target), rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("name", ["flow", "cholesky"])
def test_the_loss_is_hybrid_score_matching(name):
    """``l_vv^2 |grad_v log p(u | x0) - s_v|^2``, both scores by autograd."""
    path, t = PATHS[name](), 0.4
    oracle = Lifted(oracles.GaussianMixture(path.channel, draws(4, 3), 0.2), path)
    x0, eps = draws(5, 3, seed=1), draws(5, 2, 3, seed=2)
    (a, r), covariance = path.matrices(t), path.covariance(t)
    clean = torch.stack([x0, torch.zeros_like(x0)], 1)
    u = apply([(a, clean), (r, eps)]).requires_grad_()
    (score,) = torch.autograd.grad(oracle.log_prob(u, t).sum(), u)
    kernel = -torch.linalg.solve(covariance, (u - apply([(a, clean)])).detach())
    variance = 1 / torch.linalg.inv(covariance)[1, 1]
    truth = variance * (kernel - score)[:, 1].square().mean(1)
    assert torch.allclose(hybrid(oracle, x0, t, eps), truth, atol=1e-8)


def test_the_loss_takes_times_per_sample():
    oracle = Gaussian(CLD(), draws(2, 3), 0.3)
    x0, eps, t = draws(4, 2, 3), draws(4, 2, 2, 3, seed=1), torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=torch.float64)
    together = hybrid(oracle, x0, t, eps)
    for i in range(4):
        assert torch.allclose(together[i], hybrid(oracle, x0[i : i + 1], t[i], eps[i : i + 1])[0])


class Watch(nn.Module):
    """Gives the first half of what it sees, or all of it, and remembers the call."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x, time, cond=None):
        self.seen, self.time, self.cond = x, time, cond
        return x[:, : x.shape[1] * self.outputs // 2]


@pytest.mark.parametrize("target", [VelocityNoise(), Noise()])
@pytest.mark.parametrize("shape", [(6,), (3, 5), (3, 4, 4)])
def test_networks_see_positions_on_velocities_and_decode_to_both_equations(shape, target):
    path, network = CLD(), Watch(target.outputs)
    denoiser = NeuralPhaseDenoiser(network, path, target, sigma_data=0.7)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x0 = 0.7 * draws(20_000, *shape)
    u = phase.diffuse(path, x0[:2], t, torch.Generator().manual_seed(0))
    estimate = denoiser(u, t, "cond")
    assert network.seen.shape == (2, 2 * shape[0], *shape[1:])
    assert network.cond == "cond"
    assert network.time.shape == (2,)
    (a, r), (p, q) = path.matrices(t), target.rows(path, t)
    assert torch.allclose(apply([(a, estimate.x0), (r, estimate.eps)]), u, atol=1e-8)
    y = network(network.seen, network.time).unflatten(1, (target.outputs, -1))
    assert torch.allclose(estimate.at(p, q)[:, : target.outputs], y, atol=1e-8)
    if target.outputs == 1:
        assert float(estimate.x0[:, 1].abs().max()) < 1e-7
    # What the network sees has unit variance in both halves.
    denoiser(phase.diffuse(path, x0, 0.3, torch.Generator().manual_seed(0)), at(0.3))
    for half in network.seen.chunk(2, dim=1):
        assert float(half.var()) == pytest.approx(1, rel=5 * (2 / half.numel()) ** 0.5)
    with pytest.raises(ValueError, match="no flow map"):
        denoiser(u, t, None, at(0.1))


def energy_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """``2 E|X - Y| - E|X - X'| - E|Y - Y'|``, zero for equal laws, by the unbiased estimate."""
    n, m = len(x), len(y)
    inner = (torch.cdist(z, z).sum() / (k * (k - 1)) for z, k in ((x, n), (y, m)))
    return float(2 * torch.cdist(x, y).mean() - sum(inner))


class Small(nn.Module):
    """A tiny multilayer perceptron on u and a few sines and cosines of the clock."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        widths = (2 * dim + 8, 128, 128, outputs * dim)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x, time, cond=None):
        angle = time[:, None] / 1000 * torch.pi / 2 * torch.tensor([1.0, 2.0, 4.0, 8.0])
        h = torch.cat([x, angle.sin(), angle.cos()], 1)
        for layer in self.layers[:-1]:
            h = torch.nn.functional.silu(layer(h))
        return self.layers[-1](h)


def trained(path, data, target, steps: int = 1000, batch: int = 256) -> NeuralPhaseDenoiser:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small(2, target.outputs)
    denoiser = NeuralPhaseDenoiser(network, path, target, sigma_data=0.8)
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    # Evenly over log-SNR from -6 to 10, where the position is half known.
    ladder = path.time(torch.linspace(-6, 10, 16 * batch, dtype=torch.float64))
    for _ in range(steps):
        t = ladder[torch.randint(16, (batch,), generator=generator) + 16 * torch.arange(batch)]
        loss = hybrid(denoiser, data.sample(batch, generator), t, torch.randn(batch, 2, 2, generator=generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return denoiser


@pytest.mark.parametrize(
    ("path", "target", "sampler"),
    [
        (CLD(), Mixed(Noise(), 0.8), GDDIM(2)),
        pytest.param(CLD(root=Cholesky()), Mixed(VelocityNoise(), 0.8), SSCS(), marks=pytest.mark.slow),
        pytest.param(CLD(), Mixed(VelocityNoise(), 0.8), GDDIM(2), marks=pytest.mark.slow),
    ],
    ids=["gddim", "cld", "gddim-on-velocity-noise"],
)
def test_a_trained_network_samples_the_data(path, target, sampler):
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    data = oracles.GaussianMixture(path.channel, means, 0.04)
    denoiser = trained(path, data, target)
    u = phase.prior(denoiser, (1000, 2), generator)
    out = sample(sampler, denoiser, u, times.Quadratic()(path, 40), generator=generator)[:, 0]
    truth = data.sample(1000, generator)
    assert energy_distance(torch.randn(1000, 2, generator=generator), truth) > 0.05
    assert energy_distance(out, truth) < 0.02
